r"""Whether an answer and a gold answer are the same, and a code that says why.

Answers are hostile: they are whatever a model sampled. All here is regular expressions
and fractions, linear in the text or nearly so; what only algebra can tell is put to
`ask`, one of whose outcomes it is: `same_algebra`, `other_algebra`, `unreadable`,
`timeout` or `crashed`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from ovd_jax.tasks.grading import parts
from ovd_jax.tasks.grading.cleaning import RELATION, TEXT, clean, key
from ovd_jax.tasks.grading.folding import RANGE
from ovd_jax.tasks.grading.letters import compare_choices, named_letter
from ovd_jax.tasks.grading.numbers import (
    FUNCTION,
    POWER,
    ROUNDED,
    TEXT_COMMAND,
    UNIT_TEXT,
    number,
    same_number,
)

MAX_CHARS = 1000  # of an answer or a gold; none of the 99% shortest golds comes near
MAX_VALUES = 24  # that are compared one by one
TOLERANCE = Fraction(1, 10**4)  # of decimals, as a share of a gold that is no integer
RIGHT = ("same_text", "same_number", "same_choice", "same_values", "same_algebra")

Ask = Callable[[str, str], str]  # (answer, gold) -> the outcome of algebra

ASSIGNED = re.compile(
    r"^(?:m?\\(?:angle|overline|triangle|widehat) ?\{?[a-z]{1,4}\}?|[a-z]{1,3}"
    r"|\\[a-z]+)(?:\s?_\s?(?:\w|\{[\w\\ ]{1,8}\}))?"
    r"(?:\s?\([^()=]{1,20}\))?\s?(?:=|\\approx)\s?(?=[^=]*$)",
    re.IGNORECASE,
)
NAME_LAST = re.compile(r"^([^=]*[^=<>!\s])\s?=\s?([a-z])$")
# Golds of these forms are no differences, quotients and ratios, though they look so.
CLOCK = re.compile(r"\d{1,2}:\d\d(?::\d\d)?(\s?[ap]\.?m\.?)?", re.IGNORECASE)
DATE = re.compile(r"\d{4}([-/])\d\d?\1\d\d?|\d\d?([-/.])\d\d?\2\d{4}")
NO_BRACES = str.maketrans("", "", "{}")
WORDS = re.compile(r"(?=no$|.*[a-z]{3})[a-z0-9' .,&-]+")
PROSE = re.compile(
    r"(?<![a-z\\])(?!arc|sqrt|sinh|cosh|tanh)(?:[a-z]{4,}|all|any|for|if)\b"
)
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]*matrix\}|\\[A-Za-z]+")
TRAILING_UNIT = re.compile(
    rf"(?<=.){UNIT_TEXT}{POWER}$|(?<=[\d}})i])\s?(?:[ckm]m|[km]g|m[lL]){POWER}$"
)
UNIT_POWER = re.compile(
    r"(?:[ckm]?m|text\s?\{[^{}]*\})(?:\s?\^\s?|(?<=m))\{?\s?([23])\s?\}?$"
)
BASED = re.compile(r"-?\w+_\{?\d+\}?")
VERDICT = re.compile(r"(yes|no|true|false)\s?[,.;:]", re.IGNORECASE)
QUALIFIER = re.compile(
    rf",?\s*(?:{TEXT_COMMAND}\{{\s*)?\bfor\s(?:all|any|every|each)\b.*$", re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether an answer equals the gold answer, with a code for the reason."""

    reason: str

    @property
    def equal(self) -> bool:
        """True if the reason is one of `RIGHT`."""
        return self.reason in RIGHT


@dataclasses.dataclass(frozen=True)
class Rule:
    """What decides where texts do not: algebra, and how far decimals may differ."""

    ask: Ask
    tolerance: Fraction = TOLERANCE


def compare(answer: str, gold: str, rule: Rule) -> str:
    """The reason why two texts as written are the same answer or are not."""
    if not answer.strip() or answer.strip().casefold() == "nan":
        return "no_answer"
    if answer.strip() == gold.strip():
        return "same_text"
    if max(len(answer), len(gold)) > MAX_CHARS:
        return "too_long"
    answer, gold = clean(answer), clean(gold)
    if not (answer and gold):
        return "other_text"
    reason = "other_text"
    for left, right in readings(answer, gold):
        reason = compare_clean(left, right, rule)
        if reason in RIGHT:
            break
    return reason


def readings(answer: str, gold: str) -> list[tuple[str, str]]:
    r"""The pairs to compare: of `2\sqrt2 \approx 2.83` the exact side, and the other
    one where the gold has both, or is a decimal itself."""
    answers, golds = (
        [side.strip() for side in text.split(r"\approx") if side.strip()]
        for text in (answer, gold)
    )
    if ASSIGNED.match(answer) or len(answers) != 2:
        answers = [answer]
    if ASSIGNED.match(gold) or len(golds) != 2:
        golds = [gold]
    value = number(golds[-1])
    if len(answers) == 2 and (number(answers[0]) or not (value and value.decimal)):
        answers = answers[:1]
    return [(left, right) for left in answers for right in golds]


def compare_clean(answer: str, gold: str, rule: Rule) -> str:
    """The same for two cleaned texts, or for one value out of each."""
    answer, gold = unnamed(*without_half(answer, gold))
    if key(answer) == key(gold):
        return "same_text"
    if other_power(answer, gold):
        return "other_unit"
    if (value := number(answer)) and (gold_value := number(gold)):
        same = same_number(value, gold_value, rule.tolerance)
        return "same_number" if same else "other_number"
    choice = compare_choices(
        *(TEXT.sub(r"\1", text).strip() for text in (answer, gold))
    )
    if reason := choice or compare_based(answer, gold):
        return reason
    if is_text(answer, gold) or contradicts_itself(answer):
        return "other_text"
    if not QUALIFIER.search(answer):
        gold = QUALIFIER.sub("", gold) or gold
    if reason := compare_values(answer, gold, rule):
        return reason
    if is_prose(gold):
        verdict = VERDICT.match(answer)
        same = verdict and key(gold) == key(verdict[1])
        return "same_text" if same or key(answer) == key(gold) else "other_text"
    return rule.ask(answer, gold)


def is_text(answer: str, gold: str) -> bool:
    """Whether a range, a date or a time of day is among them: to be compared as texts,
    since algebra would take 3-5 for a difference and 3:20 for a quotient."""
    if RANGE in answer + gold or DATE.fullmatch(answer) or DATE.fullmatch(gold):
        return True
    return bool(CLOCK.fullmatch(gold)) and ":" in answer


def without_half(answer: str, gold: str) -> tuple[str, str]:
    """Two times of day without "am" or "pm", where one of them does not say which."""
    first, second = CLOCK.fullmatch(answer), CLOCK.fullmatch(gold)
    if not (first and second) or bool(first[1]) == bool(second[1]):
        return answer, gold
    bare = [re.sub(r"[\sa-z.]", "", time[0].lower()) for time in (first, second)]
    return bare[0], bare[1]


def contradicts_itself(answer: str) -> bool:
    """Whether an answer says that two different numbers are equal, as `x=4=5` does:
    algebra would take the last."""
    values = [value for side in answer.split("=") if (value := number(side.strip()))]
    return any(not same_number(v, values[0], ROUNDED) for v in values[1:])


def unnamed(answer: str, gold: str) -> tuple[str, str]:
    """Both without a name such as `x =`, unless they name different things or one of
    them is an equation without a name."""
    answer, gold = (NAME_LAST.sub(r"\2=\1", text) for text in (answer, gold))
    named = [ASSIGNED.match(text) for text in (answer, gold)]
    pairs = list(zip((answer, gold), named, strict=True))
    if any(is_equation(text) and not name for text, name in pairs):
        return answer, gold
    if len({key(name[0]) for name in named if name}) < 2:
        answer, gold = (text[name.end() :] if name else text for text, name in pairs)
    return answer, gold


def is_equation(text: str) -> bool:
    """True if a text is a single equation, not a list or chain."""
    return text.count("=") == 1 and "," not in text and not RELATION.search(text)


def other_power(answer: str, gold: str) -> bool:
    """Whether both have units, of different powers: an area is no volume."""
    powers = [match[1] for text in (answer, gold) if (match := UNIT_POWER.search(text))]
    return len(set(powers)) == 2


def compare_based(answer: str, gold: str) -> str | None:
    """For numbers with a base, such as 1010_2."""
    if not (BASED.fullmatch(answer) and BASED.fullmatch(gold)):
        return None
    same = answer.translate(NO_BRACES) == gold.translate(NO_BRACES)
    return "same_number" if same else "other_number"


def compare_values(answer: str, gold: str, rule: Rule) -> str | None:
    """For tuples, intervals, sets and lists: part by part. None for anything else."""
    answers, golds = parts.structure(answer), parts.structure(gold)
    if golds is None or (len(golds.parts) < 2 and golds.kind == "list"):
        return None
    if answers is None or golds.is_condition or answers.is_condition:
        return None
    if answers.kind == "list" and golds.kind == "()" and parts.names(answers):
        answers = dataclasses.replace(answers, kind="()")  # x = 1, y = 2
    if {answers.kind, golds.kind} <= {"list", "{}"}:
        ordered = golds.ordered
    elif answers.kind == golds.kind:
        ordered = True
    else:
        return "other_values"
    if len(answers.parts) != len(golds.parts) or len(golds.parts) > MAX_VALUES:
        return "other_values"
    match = match_ordered if ordered else match_unordered
    return match(answers.parts, golds.parts, rule)


def match_ordered(answers: Sequence[str], golds: Sequence[str], rule: Rule) -> str:
    """Compares values at the same index."""
    for answer, gold in zip(answers, golds, strict=True):
        reason = compare_clean(answer, gold, rule)
        if reason not in RIGHT:
            return failure(reason)
    return "same_values"


def match_unordered(answers: Sequence[str], golds: Sequence[str], rule: Rule) -> str:
    """Each gold value with one answer of its own; a hang ends the search."""
    left = sorted(answers, key=len)
    for gold in golds:
        for answer in sorted(left, key=lambda text: key(text) != key(gold)):
            reason = compare_clean(answer, gold, rule)
            if reason in ("timeout", "crashed"):
                return reason
            if reason in RIGHT:
                left.remove(answer)
                break
        else:
            return "other_values"
    return "same_values"


def failure(reason: str) -> str:
    """Why a list is wrong of which one part is wrong for `reason`."""
    return reason if reason in ("timeout", "crashed") else "other_values"


def is_prose(gold: str) -> bool:
    """Whether a gold has words that matter: math-verify skips or multiplies them."""
    words = TEXT.sub(r"\1", gold).strip().lower()
    if WORDS.fullmatch(words):
        return not FUNCTION.search(words)
    terms = TEXT.sub(r" \1 ", TRAILING_UNIT.sub("", gold))
    return bool(PROSE.search(ENVIRONMENT.sub(" ", terms).lower()))


def choice_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that an answer names by letter, by text or by both."""
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    keys = dict(zip((key(clean(choice)) for choice in choices), letters, strict=True))
    cleaned = TEXT.sub(r"\1", clean(answer[:MAX_CHARS])).strip()
    return keys.get(key(cleaned)) or named_letter(cleaned, letters)

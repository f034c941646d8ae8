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

from ovd_jax.tasks import parts

MAX_CHARS = 1000  # of an answer or a gold; none of the 99% shortest golds comes near
MAX_VALUES = 24  # that are compared one by one
RELATIVE_TOLERANCE = Fraction(1, 10**6)  # for golds that are not integers
RIGHT = ("same_text", "same_number", "same_choice", "same_values", "same_algebra")

Ask = Callable[[str, str], str]  # (answer, gold) -> the outcome of algebra

LATEX_NOISE = re.compile(
    r"\\\\|\\[()\[\]!,$]|\\[;: ]|~|[$£€]|\{,\}|\\q?quad(?![A-Za-z])"
    r"|\\(?:left|right|displaystyle|[dt]frac|geqslant|leqslant|varnothing)(?![A-Za-z])"
    r"|(?<=[,(\[ ])\+\s?(?=\\infty)"
)
KEPT_NOISE = {r"\\": r"\\", "{,}": ",", r"\dfrac": r"\frac", r"\tfrac": r"\frac"}
KEPT_NOISE |= {r"\geqslant": r"\ge", r"\leqslant": r"\le", r"\varnothing": r"\emptyset"}
KEPT_NOISE |= dict.fromkeys((r"\;", r"\:", r"\ ", "~", r"\quad", r"\qquad"), " ")
# Forms of full width, as in Chinese text, and its full stop.
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3002: "."}
TEXT_COMMAND = r"\\(?:text|textbf|textrm|mbox|mathrm|mathbf|operatorname)\s?"
TEXT = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}")
DEGREES = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|°|\\degree(?![A-Za-z])")
LOOSE_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # "1 1/2" is not "11/2"
ARTICLE = re.compile(r"^(?:the|an?) (?=\w{3})", re.IGNORECASE)
ASSIGNED = re.compile(
    r"^[a-z]{1,3}(?:\s?_\s?(?:\w|\{[\w\\ ]{1,8}\}))?(?:\([a-z]\))?\s?=\s?(?=[^=]*$)",
    re.IGNORECASE,
)
NAME_LAST = re.compile(r"^([^=]+[^=<>!\s])\s?=\s?([a-z])$")
FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|pi|mod|inf|ln)\b")
NO_BRACES = str.maketrans("", "", "{}")
CAPITALS = frozenset("ABCDEFGH")
WORDS = re.compile(r"(?=no$|.*[a-z]{3})[a-z0-9' .,&-]+")
PROSE = re.compile(
    r"(?<![a-z\\])(?!arc|sqrt|sinh|cosh|tanh)(?:[a-z]{4,}|all|any|for|if)\b"
)
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]*matrix\}|\\[A-Za-z]+")
CONSTANT = re.compile(TEXT_COMMAND + r"\{\s?([ei])\s?\}")
UNIT_TEXT = TEXT_COMMAND + r"\{(?:[^{}\d]|\^\d)*\}"
POWER = r"(?:\^\{?-?\d\}?)?"
TRAILING_UNIT = re.compile(
    rf"(?<=.){UNIT_TEXT}{POWER}$|(?<=[\d}})i])\s?(?:[ckm]m|[km]g|m[lL]){POWER}$"
)
UNIT_POWER = re.compile(r"(?:[ckm]?m|text\s?\{[^{}]*\})\s?\^\s?\{?\s?([23])\s?\}?$")
BASED = re.compile(r"-?\w+_\{?\d+\}?")
LETTERS = re.compile(r"\(?([A-H](?:[\s,;、和与]*(?:and\s*)?[A-H])*)\)?")
LABELLED = re.compile(r"\(?([A-Z])(?:\)[.:]?|[.:、])\s*\S|选?项?\s?([A-Z])项?$")
VERDICT = re.compile(r"(yes|no|true|false)\s?[,.;:]", re.IGNORECASE)
QUALIFIER = re.compile(
    rf",?\s*(?:{TEXT_COMMAND}\{{\s*)?\bfor\s(?:all|any|every|each)\b.*$", re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether an answer equals the gold answer, and a code that says why."""

    reason: str

    @property
    def equal(self) -> bool:
        """Whether the reason is one of `RIGHT`."""
        return self.reason in RIGHT


def compare(answer: str, gold: str, ask: Ask) -> str:
    """The reason why two texts as written are the same answer or are not."""
    if not answer.strip():
        return "no_answer"
    if answer.strip() == gold.strip():
        return "same_text"
    if max(len(answer), len(gold)) > MAX_CHARS:
        return "too_long"
    answer, gold = clean(answer), clean(gold)
    if not (answer and gold):
        return "other_text"
    return compare_clean(answer, gold, ask)


def clean(text: str) -> str:
    """Drops delimiters, currency and spacing commands: the same answer to a reader."""
    text = text.translate(FULL_WIDTH)
    text = LATEX_NOISE.sub(lambda noise: KEPT_NOISE.get(noise[0], ""), text)
    text = CONSTANT.sub(r" \1", text)  # math-verify takes them for units
    return " ".join(text.split()).strip("* ").rstrip(". ")


def key(cleaned: str) -> str:
    """What is left of an answer when style is taken away; equal keys, equal answers."""
    found = DEGREES.sub("", TEXT.sub(r"\1", cleaned)).replace(r"\%", "%")
    found = ARTICLE.sub("", " ".join(found.split()).rstrip(". "))
    found = LOOSE_SPACE.sub("", re.sub(r"(?<=[A-Za-z])\.", "", found))
    return found.casefold()


def compare_clean(answer: str, gold: str, ask: Ask) -> str:
    """The same for two cleaned texts, or for one value out of each."""
    answer, gold = unnamed(answer, gold)
    if key(answer) == key(gold):
        return "same_text"
    if other_power(answer, gold):
        return "other_unit"
    if (value := number(answer)) and (gold_value := number(gold)):
        return "same_number" if same_number(value, gold_value) else "other_number"
    if reason := compare_choices(answer, gold) or compare_based(answer, gold):
        return reason
    if not QUALIFIER.search(answer):
        gold = QUALIFIER.sub("", gold) or gold
    if reason := compare_values(answer, gold, ask):
        return reason
    if is_prose(gold):
        same = (
            key(gold) == key(VERDICT.match(answer)[1]) if VERDICT.match(answer) else 0
        )
        return "same_text" if same or key(answer) == key(gold) else "other_text"
    return ask(answer, gold)


def unnamed(answer: str, gold: str) -> tuple[str, str]:
    """Both without a name such as `x =`, unless they name different things."""
    answer, gold = (NAME_LAST.sub(r"\2=\1", text) for text in (answer, gold))
    names = [match[0] for text in (answer, gold) if (match := ASSIGNED.match(text))]
    if len({key(name) for name in names}) < 2:
        answer, gold = ASSIGNED.sub("", answer), ASSIGNED.sub("", gold)
    return answer, gold


def other_power(answer: str, gold: str) -> bool:
    """Whether both have units, of different powers: an area is no volume."""
    powers = [match[1] for text in (answer, gold) if (match := UNIT_POWER.search(text))]
    return len(set(powers)) == 2


def compare_choices(answer: str, gold: str) -> str | None:
    """For golds that are letters of choices, and answers that name such letters."""
    answer, gold = (TEXT.sub(r"\1", text).strip() for text in (answer, gold))
    letters = LETTERS.fullmatch(gold)
    if not letters:
        return None
    named = LETTERS.fullmatch(answer) or LABELLED.match(answer)
    if not named:
        return None
    found = CAPITALS & set(named[1] or named[named.lastindex])
    return "same_choice" if found == CAPITALS & set(letters[1]) else "other_choice"


def compare_based(answer: str, gold: str) -> str | None:
    """For numbers with a base, such as 1010_2."""
    if not (BASED.fullmatch(answer) and BASED.fullmatch(gold)):
        return None
    same = answer.translate(NO_BRACES) == gold.translate(NO_BRACES)
    return "same_number" if same else "other_number"


def compare_values(answer: str, gold: str, ask: Ask) -> str | None:
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
    return match(answers.parts, golds.parts, ask)


def match_ordered(answers: Sequence[str], golds: Sequence[str], ask: Ask) -> str:
    """Each value beside the one in its place."""
    for answer, gold in zip(answers, golds, strict=True):
        reason = compare_clean(answer, gold, ask)
        if reason not in RIGHT:
            return failure(reason)
    return "same_values"


def match_unordered(answers: Sequence[str], golds: Sequence[str], ask: Ask) -> str:
    """Each gold value with one answer of its own; a hang ends the search."""
    left = sorted(answers, key=len)
    for gold in golds:
        for answer in sorted(left, key=lambda text: key(text) != key(gold)):
            reason = compare_clean(answer, gold, ask)
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
    labelled = LABELLED.match(cleaned)
    named = (
        cleaned.strip("()"),
        keys.get(key(cleaned)),
        labelled and labelled[labelled.lastindex],
    )
    return next((letter for letter in named if letter in letters), None)


UNIT = (
    rf"\s?{UNIT_TEXT}|st|nd|rd|th|[ckm]m|[km]g|ml|\s?(?:k?m|mi|ft)/(?:h|hr|s|min)"
    rf"|\s(?!{FUNCTION.pattern}|(?:and|plus|minus|hundred|thousand|\w*illion|dozen)\b)"
    r"(?:[a-z]{3,}|ft|in|hr|mi|lb|oz)\b(?:\s[a-z./]+)*"
)
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+"
NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s?(?:(?P<whole>\d+)\s)?(?P<top>(?:{DIGITS})(?:e[-+]?\d{{1,3}})?)"
    rf"(?:\s?/\s?(?P<bottom>{DIGITS}))?(?P<percent>\s?(?:\\?%|percent))?"
    rf"(?:(?:{UNIT}){POWER})?"
)
FRACTION = re.compile(r"\\frac\s?(?:\{(-?\d+)\}|(\d))\s?(?:\{(\d[\d,]*)\}|(\d))")
POWER_OF_TEN = re.compile(
    r"\s?(?:\\times|\\cdot|\*|\u00d7)\s?10\s?\^\s?(?:\{\s?([-+]?\d{1,3})\s?\}|(\d))"
)


@dataclasses.dataclass(frozen=True)
class Number:
    """A plain number as it was written."""

    value: Fraction
    percent: bool
    tolerance: Fraction  # as a gold: how far an equal number may be


def number(cleaned: str) -> Number | None:
    """The plain number that a text is, with its unit; None for anything else."""
    text = FRACTION.sub(r" \1\2/\3\4", DEGREES.sub("", cleaned).lower())
    match = NUMBER.fullmatch(POWER_OF_TEN.sub(r"e\1\2", text).strip())
    if not match or (match["whole"] and not match["bottom"]):
        return None
    top = match["top"].replace(",", "")
    bottom = Fraction((match["bottom"] or "1").replace(",", ""))
    if not bottom:
        return None
    value = Fraction(match["whole"] or 0) + Fraction(top) / bottom
    value = -value if match["sign"] == "-" else value
    integer = top.isdigit() and not match["bottom"]
    tolerance = 0 if integer else max(abs(value) * RELATIVE_TOLERANCE, rounding(top))
    return Number(value, bool(match["percent"]), Fraction(tolerance))


def rounding(top: str) -> Fraction:
    """Half a unit in the last place of a measured value, such as 2.998e8, that has
    three digits or more; 0 for any other number, which is exact."""
    digits, _, power = top.partition("e")
    if not power or sum(c.isdigit() for c in digits.lstrip("0.")) < 3:
        return Fraction(0)
    decimals = len(digits.partition(".")[2])
    return Fraction(10) ** (int(power) - decimals) / 2


def same_number(answer: Number, gold: Number) -> bool:
    """Whether they are equal: 50 % may be written 50 or 0.5."""
    scale = Fraction(100) ** (gold.percent - answer.percent)
    found = (answer.value, answer.value * scale)
    return any(abs(value - gold.value) <= gold.tolerance for value in found)

"""Answers without what makes no difference to a reader: delimiters, currency, style."""

import re

from ovd_jax.tasks.grading.folding import RANGE, fold, plain_math
from ovd_jax.tasks.grading.numbers import (
    CURRENCY,
    DEGREES,
    ROUNDED,
    TEXT_COMMAND,
    number,
    same_number,
)

LATEX_NOISE = re.compile(
    r"\\\\|\\[()\[\]!,$]|\\[;: ]|~|\$|\{,\}|\\q?quad(?![A-Za-z])"
    r"|\\(?:left|right|displaystyle|[dt]frac|geqslant|leqslant|varnothing)(?![A-Za-z])"
    r"|(?<=[,(\[ ])\+\s?(?=\\infty)"
)
KEPT_NOISE = {r"\\": r"\\", "{,}": ",", r"\dfrac": r"\frac", r"\tfrac": r"\frac"}
KEPT_NOISE |= {r"\geqslant": r"\ge", r"\leqslant": r"\le", r"\varnothing": r"\emptyset"}
KEPT_NOISE |= dict.fromkeys((r"\;", r"\:", r"\ ", "~", r"\quad", r"\qquad"), " ")
TEXT = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}")
QUOTED = re.compile(r"(['\"`]+)(.*?)\1")
ROUGHLY = re.compile(
    r"^(?:(?:approximately|approx\.?|about|around|roughly|circa)\s|\\approx)\s*"
    r"(?=[-+\d.\\])",
    re.IGNORECASE,
)
REALS = re.compile(
    r"(?:[a-z] ?\\in ?)?(?:\\mathbb ?\{? ?R ?\}?|all real numbers)", re.IGNORECASE
)
# {x | x > 1}: the condition alone says as much.
SET_BUILDER = re.compile(r"\\?\{ ?[a-z] ?(?:\\mid|[|:]) ?([^{}|,;]+?)\\?\}")
LOOSE_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # "1 1/2" is not "11/2"
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBERS = {word: number for number, word in enumerate(_SMALL)}
NUMBERS |= {word: 10 * number for number, word in enumerate(_TENS, start=2)}
# "five", "twenty-five apples"
IN_WORDS = re.compile(
    rf"^({'|'.join(sorted(NUMBERS, reverse=True))})"
    rf"(?:(?<=ty)[- ]({'|'.join(_SMALL)}))?"
    r"(?=$|\s(?!half|third|fourth|quarter|fifth|hundred|thousand|\w*illion)[a-z]+$)",
    re.IGNORECASE,
)
RATIO = re.compile(r"^(\d{1,6}) to (\d{1,6})$")
NEGATIVE = re.compile(r"^(?:negative|minus)\s(?=[\d.\\$])", re.IGNORECASE)
PLUS_OR_MINUS = re.compile(r"(?:\+\s?/\s?-|\+-)(?=\s?[\d.A-Za-z\\])")
COPULA = re.compile(
    r"(?<=[\d%)}\]A-Za-z])\s?"
    r"(?:\u3067\u3059|\uc785\ub2c8\ub2e4|\uc774\ub2e4|\u0939\u0948)\.?$"
)
RESTATED = re.compile(r"(?<=\S)\s\((?:i\.e\.,?|that is,?|or|=)\s?([^()]{1,40})\)$")
# ]1, 2[ is how the French write (1, 2).
OUTWARD = re.compile(r"[\[\]]([^\[\](){},;]{1,60}[,;][^\[\](){},;]{1,60})[\[\]]")
ARTICLE = re.compile(r"^(?:the|an?) (?=\w{3})", re.IGNORECASE)
CONSTANT = re.compile(TEXT_COMMAND + r"\{\s?([ei])\s?\}")
RELATION = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|ne|neq)(?![A-Za-z])")


def clean(text: str) -> str:
    """Folds signs, and drops delimiters, currency and spacing commands: the same
    answer to a reader."""
    text = LATEX_NOISE.sub(lambda noise: KEPT_NOISE.get(noise[0], ""), _bare(text))
    text = CONSTANT.sub(r" \1", plain_math(text))  # math-verify takes them for units
    text = " ".join(text.split()).strip("* ").rstrip(".,; ").lstrip("= ")
    if quoted := QUOTED.fullmatch(text):
        text = quoted[2].strip()
    text = ROUGHLY.sub("", text)
    if (found := SET_BUILDER.fullmatch(text)) and RELATION.search(found[1]):
        return found[1].strip()
    return r"(-\infty,\infty)" if REALS.fullmatch(text) else text


def _bare(text: str) -> str:
    """A text folded, without a currency before its number, the words of other languages
    that end a sentence after one, or a sign in words, and with a plain stop."""
    text = COPULA.sub("", CURRENCY.sub(r"\1", fold(text).strip()))
    text = IN_WORDS.sub(_digits, RATIO.sub(r"\1:\2", text))
    text = NEGATIVE.sub("-", PLUS_OR_MINUS.sub(r"\\pm ", _said_once(text)))
    if (found := OUTWARD.fullmatch(text)) and "[" + found[1] + "]" != text:
        left = "(" if text[0] == "]" else "["
        text = f"{left}{found[1]}{')' if text[-1] == '[' else ']'}"
    return text.replace("\N{IDEOGRAPHIC FULL STOP}", ".")


def _said_once(text: str) -> str:
    """A number without what says it again; "4 (or 5)" is none, and stays."""
    again = RESTATED.search(text)
    if again is None:
        return text
    once, twice = number(text[: again.start()]), number(again[1])
    if not once or not twice or not same_number(once, twice, ROUNDED):
        return text
    return text[: again.start()]


def _digits(words: re.Match) -> str:
    tens, ones = words[1].casefold(), (words[2] or "").casefold()
    return str(NUMBERS[tens] + NUMBERS.get(ones, 0))


def key(cleaned: str) -> str:
    """What is left of an answer when style is taken away; equal keys, equal answers."""
    found = DEGREES.sub("", TEXT.sub(r"\1", cleaned)).replace(r"\%", "%")
    found = ARTICLE.sub("", " ".join(found.split()).rstrip(". "))
    found = LOOSE_SPACE.sub("", re.sub(r"(?<=[A-Za-z])\.", "", found))
    return found.replace(RANGE, "-").casefold()

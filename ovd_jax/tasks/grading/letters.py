"""Answers that name one of several choices by its letter."""

import re
from collections.abc import Sequence

CAPITALS = frozenset("ABCDEFGH")
LETTERS = re.compile(r"\(?([A-H](?:[\s,;、和与]*(?:and\s*)?[A-H])*)\)?")
# "option B", "the correct choice is (B)": what may stand before a letter.
PREFIX = re.compile(
    r"(?:(?:the|correct|right|best|final|answer|option|choice|letter|is|would be|so"
    r"|therefore|thus|hence|i (?:choose|pick|select|would choose))\b\s*[:,]?\s*)+"
    r"(?=[(\[*]*[A-Z](?![A-Za-z]))",
    re.IGNORECASE,
)
# "B is correct", "B:", and in Chinese "option B".
BEHIND = re.compile(
    r"(?<=^[A-Za-z])(?:\s?[:\u9009\u9078]\u9879?\u9805?$|\s(?:is|seems)\s(?:the\s)?"
    r"(?:correct|right|best|true)\b(?:\s(?:answer|choice|option|one))?\.?$)",
    re.IGNORECASE,
)
SMALL = re.compile(r"\(?[a-h]\)?$|\(?[a-h]\)(?=\s)|[a-h][.:](?=\s)")
# Not "B or C", which names two.
SEVERAL = r"(?!\s*(?:or|and|,|/|&)\s*[(\[]?[A-H](?![A-Za-z]))"
LABELLED = re.compile(
    rf"[(\[]?([A-Z])(?:[)\]][.:]?|[.:、]|,(?=\s(?!and)[a-z]{{3}})|\s-\s(?=[(\"'\\$]*[A-Za-z\d])){SEVERAL}\s*\S"
    r"|选?项?\s?([A-Z])项?$|\[([A-Z])\]$"
)
# A letter may be a name: "A - 5" is a difference where no choices are known.
DIFFERENCE = re.compile(r"[A-Z]\s-\s(?![A-Za-z]{3})")


def bare(text: str) -> str:
    """A cleaned answer without the words that lead to a letter."""
    prefix = PREFIX.match(text)
    return BEHIND.sub("", (text[prefix.end() :] if prefix else text).strip("* "))


def label(text: str) -> str | None:
    """The letter that an answer begins with, as in "(B) green" or "B - green"."""
    match = LABELLED.match(text)
    return match[match.lastindex or 0] if match else None


def compare_choices(answer: str, gold: str) -> str | None:
    """For golds that are letters of choices, and answers that name such letters."""
    letters = LETTERS.fullmatch(gold)
    if not letters:
        return None
    answer = bare(answer)
    named = LETTERS.fullmatch(answer)
    found = named[1] if named else None
    if not named and not DIFFERENCE.match(answer):
        found = label(answer)
    if not found:
        return None
    same = CAPITALS & set(found) == CAPITALS & set(letters[1])
    return "same_choice" if same else "other_choice"


def named_letter(text: str, letters: Sequence[str]) -> str | None:
    """Which of `letters` a cleaned answer names."""
    text = bare(text)
    if small := SMALL.match(text):
        text = small[0].upper() + text[small.end() :]
    named = (text.strip("()[]"), label(text))
    return next((letter for letter in named if letter in letters), None)

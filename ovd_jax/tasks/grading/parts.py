r"""The parts of answers that have several: lists, tuples, intervals and sets."""

import dataclasses
import re
from collections.abc import Iterator

OPEN, CLOSE = "([{", ")]}"
TOKEN = re.compile(r"\\[{}]|[(\[{)\]},;]")
# "1 and 2", "1 \text{ or } 2", in Chinese too; a comma may stand before the word.
WORD = re.compile(
    r",?\s*(?:\\(?:text|textrm|mbox|mathrm)\s?\{\s*,?\s*(?:and|or)\s*,?\s*\}"
    r"|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[和或与、])\s*",
    re.IGNORECASE,
)
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
CONDITION = re.compile(
    r"\\mid(?![A-Za-z])|[|<>]|\\(?:le|ge|leq|geq|lt|gt|ne|neq|cup|in)(?![A-Za-z])"
)
NAMED = re.compile(r"\(?[A-Za-z](?:\s?,\s?[A-Za-z])*\)?\s?=\s?(?=[^=]*$)")
PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|±")


@dataclasses.dataclass(frozen=True)
class Structure:
    """What encloses the parts, and the parts."""

    kind: str  # list, {} (a set), or the two brackets of a tuple or interval
    parts: tuple[str, ...]
    ordered: bool = False  # a list with semicolons: the answers to several questions
    is_condition: bool = False  # {x | x > 1} and the like: not a list of values


def structure(text: str) -> Structure | None:
    """How a cleaned text is built; a single value is a list of one. None where its
    brackets do not match."""
    text = WORD.sub(" , ", text)
    if "(" in text:  # (x, y) = (1, 2)
        text = NAMED.sub("", text) if NAMED.match(text) else text
    cuts = top_level(text)
    if cuts is None:
        return None
    pieces, ordered = cuts
    if len(pieces) == 1 and (found := enclosed(pieces[0])):
        return found
    pieces = [piece for text in pieces for piece in both_signs(text)]
    condition = any(CONDITION.search(piece) for piece in pieces)
    return Structure("list", tuple(pieces), ordered, condition)


def top_level(text: str) -> tuple[list[str], bool] | None:
    """(pieces between separators outside of brackets, whether one is a semicolon)."""
    spaced = bool(re.search(r",\s|;", text))
    thousands = {
        comma.start()
        for comma in THOUSANDS.finditer(text)
        if spaced or text[comma.end()] == "0"
    }
    depth, start, pieces, semicolon = 0, 0, [], False
    for token in TOKEN.finditer(text):
        mark = token[0].lstrip("\\")
        depth += (mark in OPEN) - (mark in CLOSE)
        if depth < 0:
            return None
        if mark in ",;" and depth == 0 and token.start() not in thousands:
            pieces.append(text[start : token.start()])
            start, semicolon = token.end(), semicolon or mark == ";"
    pieces.append(text[start:])
    pieces = [piece.strip() for piece in pieces if piece.strip()]
    return (pieces, semicolon) if depth == 0 and pieces else None


def enclosed(text: str) -> Structure | None:
    """The structure of a text that is one pair of brackets with all between them."""
    opening = "\\{" if text.startswith("\\{") else text[:1]
    if opening.lstrip("\\") not in OPEN or not closes_at_end(text):
        return None
    is_set = opening == "\\{"
    closing = 2 if text.endswith("\\}") else 1
    inner = text[len(opening) : -closing]
    found = top_level(inner)
    if found is None or (len(found[0]) == 1 and not is_set):
        return None
    kind = "{}" if opening.endswith("{") else opening + text[-1]
    return Structure(kind, tuple(found[0]), False, bool(CONDITION.search(inner)))


def closes_at_end(text: str) -> bool:
    """Whether the first bracket is closed by the last character and not before."""
    depth = 0
    for token in TOKEN.finditer(text):
        mark = token[0].lstrip("\\")
        depth += (mark in OPEN) - (mark in CLOSE)
        if depth == 0 and mark not in ",;":
            return token.end() == len(text)
    return False


def both_signs(text: str) -> Iterator[str]:
    """`1 \\pm 2` as its two values; anything else as it is."""
    if len(PLUS_MINUS.findall(text)) != 1:
        yield text
        return
    for sign in "+-":
        yield PLUS_MINUS.sub(f" {sign} ", text).strip().removeprefix("+").strip()


def names(found: Structure) -> bool:
    """Whether each part of a list is named, as in `x = 1, y = 2`."""
    return len(found.parts) > 1 and all(map(NAMED.match, found.parts))

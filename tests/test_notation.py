"""Axis letters mean one thing: those of docs/notation.md, each in its rooms."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIX = re.compile(r"^_*[a-z][a-z0-9]*(?:_[a-z0-9]+)*_([A-Z0-9]*[A-Z][A-Z0-9]*)$")
EINSUM = re.compile(r"^[\"']([.A-Z, ]+->[.A-Z]*)[\"']$")
SHAPE = re.compile(r"\[([A-Z](?:(?: ?[*+/] ?|, ?| )[A-Z0-9](?![a-z])|, \.\.\.)*)\]")


def table() -> dict[str, set[str]]:
    """The rooms of each letter."""
    text = (ROOT / "docs" / "notation.md").read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z]) \| .+ \| ([a-z ]+) \|$", text, re.MULTILINE)
    return {letter: set(rooms.split()) for letter, rooms in rows}


def letters(text: str) -> set[str]:
    """The axis letters of a module: in its names, einsums and the shapes that its
    comments and docstrings give."""
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = SUFFIX if token.type == tokenize.NAME else EINSUM
        if match := name.match(token.string):
            found |= set(match[1])
        elif token.type in (tokenize.STRING, tokenize.COMMENT):
            for shape in SHAPE.findall(token.string):
                found |= set(shape)
    return {letter for letter in found if letter.isupper()}


def files() -> list[str]:
    paths = sorted((ROOT / "ovd_jax").rglob("*.py"))
    return [str(path.relative_to(ROOT)) for path in paths]


def test_each_letter_has_one_row():
    text = (ROOT / "docs" / "notation.md").read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z]) \|", text, re.MULTILINE)
    assert rows == sorted(set(rows))
    assert set(rows) == set(table())


@pytest.mark.parametrize("file", files())
def test_a_module_uses_the_letters_of_its_room(file):
    room = file.split("/")[1].removesuffix(".py")
    known = {x for x, rooms in table().items() if rooms & {room, "all"}}
    text = (ROOT / file).read_text("utf-8")
    assert letters(text) - known == set()
    assert not re.search(r"^Axes", text, re.MULTILINE), "see docs/notation.md instead"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tokens_BT = 1", "BT"),
        ("x_1TV = lengths_P[0]", "TVP"),
        ('y = einsum("BKTE,BKES->BKTS", q, k)', "BKTES"),
        ('"""Weights [B, Y] of rows."""', "BY"),
        ("z = 1  # [P * G, K, E, Y]", "PGKEY"),
        ("x: list[Batch] = tuple[Any]", ""),
        ("MAX_LINES = SOME_X", ""),
    ],
)
def test_letters_are_found_in_names_einsums_and_shapes(line, expected):
    assert letters(line + "\n") == set(expected)

"""Reads JSONL files: problems, passages, examples, judged and recorded runs."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError

MAX_LINE = 64 << 20  # bytes; a longer line is no row, and must not fill the memory


def read_jsonl(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(position, row) of each line that is not blank. Raises UserError for a line that
    is not a JSON object."""
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        if line.strip():
            yield where, parse_row(line, where)


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of each line, blank ones too, with its end. Raises
    UserError if there is no file, or for a line over `MAX_LINE`."""
    if not Path(path).is_file():
        raise UserError(
            f"There is no file {str(path)!r}; pass the path of a JSONL file."
        )
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise UserError(
                    f"{path}:{number} has more than {MAX_LINE:,} bytes; write one JSON "
                    "object a line."
                )
            yield number, line


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line, with None for NaN and infinities. Raises UserError
    with `where` for anything else."""
    try:
        row = json.loads(
            line.decode("utf-8-sig"), parse_constant=_none, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not a JSON object in UTF-8 ({error}); write one object a line."
        ) from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is a JSON {type(row).__name__}; write an object.")
    return row


def read_object(path: str | Path, *, remedy: str = "put it back") -> dict[str, Any]:
    """The JSON object in a file of a run or a model. Raises UserError with the remedy
    for anything else, and OSError."""
    try:
        found = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {remedy}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; {remedy}.")
    return found


def as_text(value: Any) -> Any:
    """A number or truth value as text; anything else unchanged."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | float) else value


def _none(_: str) -> None:
    """Replaces NaN and the infinities."""


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None

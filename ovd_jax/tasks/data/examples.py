"""Examples for supervised fine-tuning: pieces of text, each with a weight in the
loss."""

import dataclasses
import random
from collections.abc import Callable
from typing import TypeGuard, TypeVar

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl

Item = TypeVar("Item")
Piece = tuple[str, float]  # text, and its weight in the loss; 0: only read


@dataclasses.dataclass(frozen=True)
class Branch:
    """A text that continues after the first `after` pieces and that nothing else
    sees."""

    after: int
    pieces: tuple[Piece, ...]


@dataclasses.dataclass(frozen=True)
class Example:
    """One training text; `ends` tells whether an end-of-sequence token follows."""

    pieces: tuple[Piece, ...]
    ends: bool = True
    branches: tuple[Branch, ...] = ()


def is_list_of(value: object, kind: type[Item]) -> TypeGuard[list[Item]]:
    """True for a non-empty list of items of one type."""
    return isinstance(value, list) and bool(value) and {*map(type, value)} == {kind}


def file_examples(path: str, *, seed: int) -> Callable[[int, int], list[Example]]:
    """Examples from JSONL rows with `prompt` and `completion`, in a new order every
    epoch. Raises UserError naming a row without them."""
    rows = []
    for where, row in read_jsonl(path):
        prompt, completion = row.get("prompt"), row.get("completion")
        if not (isinstance(prompt, str) and isinstance(completion, str) and completion):
            raise UserError(f"{where} needs the texts `prompt` and `completion`.")
        rows.append(Example(((prompt, 0.0), (completion, 1.0))))
    if not rows:
        raise UserError(f"{path} holds no examples.")

    def draw(step: int, count: int) -> list[Example]:
        picked = []
        for position in range(step * count, (step + 1) * count):
            epoch, index = divmod(position, len(rows))
            order = list(range(len(rows)))
            random.Random(f"{seed}-{epoch}").shuffle(order)
            picked.append(rows[order[index]])
        return picked

    return draw

"""Prefix trees of prompts: a common beginning is computed once."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ovd_jax.models.transformer import Layout
from ovd_jax.shapes import bucket, fine_bucket

_MIN_WIDTH = 32  # tokens; shorter trees are padded to as many


@dataclasses.dataclass
class Tree:
    """The longest prompt as the trunk, and the tails of the other prompts behind it."""

    trunk: tuple[int, ...]
    tokens: list[int]
    positions: list[int]
    segments: list[int]
    prefixes: list[int]  # trunk tokens that a tail token sees; 0 in the trunk
    ends: list[tuple[int, int]]  # (index of a prompt, position of its last token)

    @classmethod
    def of(cls, index: int, prompt: Sequence[int]) -> "Tree":
        """A tree of one prompt."""
        size = len(prompt)
        zeros = [0] * size
        return cls(
            tuple(prompt), list(prompt), list(range(size)), zeros, zeros.copy(),
            [(index, size - 1)],
        )  # fmt: skip

    def add(self, index: int, prompt: Sequence[int], shared: int) -> None:
        """Adds a prompt that shares its first `shared` tokens with the trunk."""
        tail = prompt[shared:]
        end = len(self.tokens) + len(tail) - 1 if tail else shared - 1
        self.ends.append((index, end))
        self.tokens += tail
        self.positions += range(shared, len(prompt))
        self.segments += [len(self.ends)] * len(tail)
        self.prefixes += [shared] * len(tail)


def grow(prompts: Sequence[Sequence[int]]) -> list[Tree]:
    """Puts all prompts into few trees; a prompt joins the first that saves half of it.

    No tree is longer than 1.5 times the longest prompt.
    """
    room = max(map(len, prompts), default=0) * 3 // 2
    trees: list[Tree] = []
    for index in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
        prompt = tuple(prompts[index])
        half = prompt[: -(-len(prompt) // 2)]
        for tree in trees:
            if tree.trunk[: len(half)] == half:
                shared = common(tree.trunk, prompt)
                if len(tree.tokens) + len(prompt) - shared <= room:
                    tree.add(index, prompt, shared)
                    break
        else:
            trees.append(Tree.of(index, prompt))
    return trees


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the common prefix of two sequences."""
    size = min(len(first), len(second))
    for index in range(size):
        if first[index] != second[index]:
            return index
    return size


def to_arrays(
    trees: Sequence[Tree], height: int
) -> tuple[np.ndarray, Layout, np.ndarray]:
    """(tokens_BT, layout, ends_BP) for `height` rows, right-padded to few widths.

    K is a power of two; where a row has fewer ends the rest point at its first token.
    """
    width = fine_bucket(max(_MIN_WIDTH, *(len(tree.tokens) for tree in trees)))
    names = ("tokens", "positions", "segments", "prefixes")
    arrays = [np.zeros((height, width), np.int32) for _ in names]
    ends = np.zeros((height, bucket(max(len(t.ends) for t in trees))), np.int32)
    for row, tree in enumerate(trees):
        for array, name in zip(arrays, names, strict=True):
            array[row, : len(tree.tokens)] = getattr(tree, name)
        ends[row, : len(tree.ends)] = [end for _, end in tree.ends]
    tokens, positions, segments, prefixes = arrays
    return tokens, Layout(positions, segments, prefixes), ends

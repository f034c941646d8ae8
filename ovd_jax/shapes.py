"""Padding to few static shapes, so that few programs are compiled."""

import math
from collections.abc import Sequence

import numpy as np


def bucket(count: int) -> int:
    """The power of two at or above `count`."""
    return 1 << (count - 1).bit_length()


def fine_bucket(count: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, ... at or above `count`."""
    power = bucket(count)
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


def round_up(count: int, multiple: int) -> int:
    """The multiple of `multiple` at or above `count`."""
    return -(-count // multiple) * multiple


def right_pad(
    rows: Sequence[Sequence[int]], height: int, multiple: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, lengths) of `height` rows, right-padded to the longest.

    Padding rows get length 1, so every softmax has a valid entry.
    """
    width = round_up(max(map(len, rows)), multiple)
    tokens = np.zeros((height, width), np.int32)
    lengths = np.ones(height, np.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
        lengths[index] = len(row)
    return tokens, lengths


def compact(
    open_PG: np.ndarray, min_rows: int, shards: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(which cells stay, which of them are open): the least grid for the open rows, of
    a multiple of `shards` lines.

    The rows of a line share a prompt: either each line keeps its own, or, where that
    leaves twice the rows, each row is given a line. The grid stays as it is where none
    of half its size, or of `min_rows`, would do.
    """
    cells_PG = np.arange(open_PG.size).reshape(open_PG.shape)
    lines = [cells[is_open] for cells, is_open in zip(cells_PG, open_PG, strict=True)]
    lines = [line for line in lines if line.size]
    together = (bucket(len(lines)), bucket(max(map(len, lines))))
    apart = (bucket(sum(map(len, lines))), 1)
    if 2 * math.prod(apart) <= math.prod(together):
        lines = [line for cells in lines for line in cells[:, None]]
        together = apart
    height, width = max(together[0], -(-min_rows // together[1])), together[1]
    height = round_up(height, shards)
    if 2 * height * width > open_PG.size:
        return cells_PG, open_PG
    stay_PG = np.full((height, width), lines[0][0])
    alive_PG = np.zeros((height, width), bool)
    for index, line in enumerate(lines):
        stay_PG[index] = line[0]
        stay_PG[index, : len(line)] = line
        alive_PG[index, : len(line)] = True
    return stay_PG, alive_PG

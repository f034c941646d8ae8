"""Padding to few static shapes, so that few programs are compiled."""

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


def right_pad(rows: Sequence[Sequence[int]], height: int, multiple: int):
    """(tokens, lengths): `height` rows beginning at the left edge, as long as need be.

    Rows beyond those given hold one token 0, so that no softmax is over nothing.
    """
    width = round_up(max(map(len, rows)), multiple)
    tokens = np.zeros((height, width), np.int32)
    lengths = np.ones(height, np.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
        lengths[index] = len(row)
    return tokens, lengths

"""The paper's arithmetic, beside the numbers that it prints."""

import sys
from pathlib import Path

import pytest

from ovd_jax.models.known import KNOWN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import token_level

QWEN_7B = KNOWN["Qwen/Qwen2.5-7B"]


def test_table_1():
    rows = token_level.table_1(QWEN_7B, 8192)
    assert [row["GB"] for row in rows] == pytest.approx(
        [4.98, 2.49, 0.0168, 0.470], 2e-3
    )
    assert rows[2]["GiB"] * 1024 == 16  # the paper's 16 MB are MiB
    assert rows[0]["GiB"] == pytest.approx(4.64, 1e-3)


def test_figures_1_and_2():
    by_length = token_level.figure(QWEN_7B, [(1024, 1), (2048, 1)])
    assert by_length[1]["logits bytes"] == 2 * by_length[0]["logits bytes"]
    assert by_length[0]["logits / cache"] == pytest.approx(15.9, 1e-2)
    (row,) = token_level.figure(QWEN_7B, [(8192, 32)])
    assert row["logits GB"] == pytest.approx(239, 1e-2)  # the paper: 240


def test_eq_1_is_half_as_much_again_as_what_the_introduction_counts():
    """160 GB there for B = 8 and N = 4 are the float32 copy alone."""
    whole = token_level.eq_1(QWEN_7B, 8192, 4, 8)
    assert whole / 1.5 / token_level.GB == pytest.approx(159.4, 1e-3)


def test_n_cancels_out_of_the_reduction():
    found = token_level.reductions(QWEN_7B, 8192, steps=20, levels=10)
    assert found["N V / v, N = 32"] == pytest.approx(486_605, 1e-5)  # not 48,000
    assert found["L V / (K v)"] == pytest.approx(8192 * 152_064 / 200)


def test_what_a_trajectory_costs_a_network():
    rows = token_level.transfers(
        QWEN_7B, 100, steps=5, levels=10, k=20, bytes_per_token=4.0
    )
    assert [row["out"] for row in rows] == [400] * 6
    assert [row["back"] for row in rows] == [
        100 * 152_064 * 4, 100 * 152_064 * 2, 100 * 20 * 8, 400, 200, 600
    ]  # fmt: skip

"""The device batch of a few trajectories, cell by cell."""

import dataclasses

import numpy as np
import pytest
from fakes import group, kept, swapped, trajectory

from ovd_jax.rollout.pack import pack

PAD = 0
MIXED = trajectory(
    1, 2, teacher=(1,), first=30
)  # its last two tokens are the teacher's
ENDED = dataclasses.replace(trajectory(2, 1, first=20), tokens=(20, 21, PAD))
LONG = trajectory(5, first=40)
GROUPS = (
    group(kept(ENDED, 1.0), swapped(trajectory(9, first=60), MIXED), prompt=(7, 8)),
    group(kept(LONG, 0.0), prompt=(9, 9, 9)),
)
ADVANTAGES = [[[0.5, -1.0], [2.0, 3.0]], [[-0.25]]]


def packed(groups=GROUPS, advantages=ADVANTAGES, *, length_multiple=8, max_tokens=8):
    return pack(
        groups, advantages, length_multiple=length_multiple, max_tokens=max_tokens
    )


def test_a_row_is_the_prompt_the_final_completion_and_padding():
    expected = [
        [7, 8, 20, 21, 0, 0, 0, 0],
        [7, 8, 30, 31, 32, 0, 0, 0],
        [9, 9, 9, 40, 41, 42, 43, 44],
    ]
    tokens_BT = packed().tokens_BT
    np.testing.assert_array_equal(tokens_BT, expected)
    assert tokens_BT.dtype == np.int32


def test_the_completion_alone_is_trained_on_an_end_token_that_pads_included():
    mask_BT = packed().completion_mask_BT
    expected = [
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 1, 1],
    ]
    np.testing.assert_array_equal(mask_BT, np.array(expected, bool))
    assert mask_BT.dtype == bool


def test_teacher_tokens_are_marked_one_by_one():
    expected = np.zeros((3, 8), bool)
    expected[1, 3:5] = True
    teacher_BT = packed().teacher_mask_BT
    np.testing.assert_array_equal(teacher_BT, expected)
    assert teacher_BT.dtype == bool


def test_each_token_has_the_advantage_of_its_step():
    expected = [
        [0, 0, 0.5, 0.5, -1, 0, 0, 0],
        [0, 0, 2, 3, 3, 0, 0, 0],
        [0, 0, 0, -0.25, -0.25, -0.25, -0.25, -0.25],
    ]
    advantages_BT = packed().advantages_BT
    np.testing.assert_array_equal(advantages_BT, expected)
    assert advantages_BT.dtype == np.float32


def test_a_step_without_tokens_moves_no_other():
    """Its only characters are in a token that began in the step before."""
    straddled = trajectory(2, 0, 1)
    assert straddled.step_ends == (2, 2, 3)
    batch = packed([group(kept(straddled, 1.0))], [[[1.0, 2.0, 3.0]]])
    np.testing.assert_array_equal(batch.advantages_BT[0, 2:6], [1, 1, 3, 0])


def test_sampler_logprobs_stand_beside_their_tokens_and_are_0_for_the_teachers():
    expected = [
        [0, 0, -2, -2.1, -2.2, 0, 0, 0],
        [0, 0, -3, 0, 0, 0, 0, 0],
        [0, 0, 0, -4, -4.1, -4.2, -4.3, -4.4],
    ]
    np.testing.assert_allclose(packed().sampler_logprobs_BT, expected, rtol=1e-6)


def test_what_the_learner_fills_in_is_zeros_of_the_same_shape():
    batch = packed()
    for array in (batch.behavior_logprobs_BT, batch.ref_logprobs_BT):
        np.testing.assert_array_equal(array, np.zeros((3, 8), np.float32))
        assert array.dtype == np.float32


@pytest.mark.parametrize(
    ("multiple", "length"), [(1, 8), (3, 9), (8, 8), (7, 14), (64, 64)]
)
def test_rows_are_padded_to_a_multiple(multiple, length):
    batch = packed(length_multiple=multiple)
    for field in dataclasses.fields(batch):
        assert getattr(batch, field.name).shape == (3, length)
    assert batch.completion_mask_BT.sum() == 3 + 3 + 5


def test_a_row_over_the_budget_is_refused_not_cut():
    with pytest.raises(
        ValueError, match=r"has 8 tokens .* over the budget of 7; raise"
    ):
        packed(max_tokens=7)


def test_groups_and_advantages_must_match():
    with pytest.raises(ValueError, match="shorter"):
        packed(advantages=ADVANTAGES[:1])
    with pytest.raises(ValueError, match="shorter"):
        packed(advantages=[ADVANTAGES[0][:1], ADVANTAGES[1]])
    with pytest.raises(ValueError, match="broadcast"):
        packed(advantages=[ADVANTAGES[0], [[1.0, 2.0]]])

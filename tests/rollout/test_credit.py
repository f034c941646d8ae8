"""Advantages worked by hand: credit, baselines, and groups without spread."""

import numpy as np
import pytest
from fakes import group, kept, swapped, trajectory, verdict

from ovd_jax.rollout.credit import group_advantages, step_rewards

TWO_STEPS = trajectory(2, 3)
TEACHER = trajectory(1, 1, 1, teacher=(0, 1, 2))


def advantages(*rollouts, **changes):
    options = {
        "credit": "trajectory",
        "credit_weight": 0.5,
        "levels": 10,
        "baseline": "after",
        "scale_by_std": True,
    }
    return group_advantages(group(*rollouts), **options | changes)


def by_reward(*rewards):
    return [kept(TWO_STEPS, reward) for reward in rewards]


def assert_rows(actual, expected, atol=1e-5):
    assert [len(row) for row in actual] == [len(row) for row in expected]
    for row, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(row, other, atol=atol)


def test_trajectory_credit_gives_every_step_the_standardized_reward():
    """Mean 1/2, standard deviation sqrt(4 / 4 / 3) = 0.57735."""
    up, down = [0.866024] * 2, [-0.866024] * 2
    assert_rows(advantages(*by_reward(1, 0, 0, 1)), [up, down, down, up])


def test_epsilon_is_added_to_the_standard_deviation():
    up, down = [0.5 / 1.07735] * 2, [-0.5 / 1.07735] * 2
    rows = advantages(*by_reward(1, 0, 0, 1), eps=0.5)
    assert_rows(rows, [up, down, down, up])


def test_trajectory_credit_counts_a_trajectory_once_however_many_its_steps():
    """By steps the mean would be 1/6."""
    rollouts = kept(trajectory(4), 1.0), kept(trajectory(1, 1, 1, 1, 1), 0.0)
    assert_rows(advantages(*rollouts), [[0.707106], [-0.707106] * 5])


def test_step_credit_standardizes_the_scores_of_all_steps():
    """R = (1, 0), (1, 1): mean 3/4, standard deviation 1/2. Outcomes do not count."""
    rollouts = (
        kept(TWO_STEPS, 0.0, verdict(9, 0)),
        kept(TWO_STEPS, 1.0, verdict(9, 9)),
    )
    assert_rows(advantages(*rollouts, credit="step"), [[0.5, -1.5], [0.5, 0.5]])


def test_step_credit_counts_every_step_of_a_long_trajectory():
    """R = (1), (0, 0, 0): mean 1/4, standard deviation 1/2."""
    rollouts = (
        kept(trajectory(9), 0.0, verdict(9)),
        kept(trajectory(1, 1, 1), 0.0, verdict(0, 0, 0)),
    )
    assert_rows(advantages(*rollouts, credit="step"), [[1.5], [-0.5] * 3])


def test_hybrid_credit_weighs_the_outcome_against_the_scores():
    """R = 1/4 R + 3/4 S/3 = (1, 1/4), (0, 3/4); mean 1/2, standard deviation 0.45644.
    Levels 4."""
    rollouts = (
        kept(TWO_STEPS, 1.0, verdict(3, 0)),
        kept(TWO_STEPS, 0.0, verdict(0, 3)),
    )
    rows = advantages(*rollouts, credit="hybrid", credit_weight=0.25, levels=4)
    assert_rows(rows, [[1.095443, -0.547721], [-1.095443, 0.547721]])


def test_step_rewards_by_hand():
    judged = verdict(9, 3, 0)
    weights = {"weight": 0.5, "levels": 10}
    for credit, expected in (
        ("trajectory", [1, 1, 1]),
        ("step", [1, 1 / 3, 0]),
        ("hybrid", [1, 2 / 3, 1 / 2]),
    ):
        rewards = step_rewards(judged, 1.0, 3, credit=credit, **weights)
        np.testing.assert_allclose(rewards, expected)


def test_a_replaced_trajectory_is_credited_by_its_own_scores():
    """Final R = (1, 1, 1), (0, 1): mean 4/5, standard deviation 0.44721; the draft's
    scores (0, 0) count only before replacement."""
    draft = swapped(
        TWO_STEPS, TEACHER, verdict=verdict(0, 0), final_verdict=verdict(9, 9, 9)
    )
    other = kept(TWO_STEPS, 0.0, verdict(0, 9))
    rows = advantages(draft, other, credit="step")
    assert_rows(rows, [[0.447213] * 3, [-1.788850, 0.447213]])
    before = advantages(draft, other, credit="step", baseline="before")
    assert_rows(before, [[1.5] * 3, [-0.5, 1.5]])  # R = 0, 0, 0, 1


@pytest.mark.parametrize(
    ("baseline", "teacher", "student_right", "student_wrong"),
    [
        ("after", 0.5, 0.5, -1.5),  # 1, 1, 1, 0: mean 3/4, deviation 1/2
        ("before", 1.5, 1.5, -0.5),  # 1, 0, 0, 0: mean 1/4, deviation 1/2
        ("union", 0.912869, 0.912869, -0.912869),  # 1, 0, 0, 0, 1, 1: 1/2, 0.54772
    ],
)
def test_the_baseline_is_after_before_or_the_union(
    baseline, teacher, student_right, student_wrong
):
    rollouts = (
        kept(TWO_STEPS, 1.0),
        swapped(TWO_STEPS, TEACHER),
        swapped(TWO_STEPS, TEACHER),
        kept(TWO_STEPS, 0.0),
    )
    expected = [[student_right] * 2, [teacher] * 3, [teacher] * 3, [student_wrong] * 2]
    assert_rows(advantages(*rollouts, baseline=baseline), expected)


def test_a_perfect_teacher_leaves_a_gradient_only_without_the_after_baseline():
    rollouts = [swapped(TWO_STEPS, TEACHER)] * 2 + [kept(TWO_STEPS, 1.0)] * 2
    assert advantages(*rollouts) == [[0.0] * 3] * 2 + [[0.0] * 2] * 2
    before = advantages(*rollouts, baseline="before")  # 0, 0, 1, 1
    assert_rows(before, [[0.866024] * 3] * 2 + [[0.866024] * 2] * 2)
    union = advantages(*rollouts, baseline="union")  # 0, 0, 1, 1, 1, 1: 2/3, 0.51640
    assert_rows(union, [[0.645496] * 3] * 2 + [[0.645496] * 2] * 2)


def test_a_right_teacher_against_wrong_students_does_not_explode():
    """The baseline is 0 for all, its spread too: the advantage is 1, not 1 / eps."""
    rollouts = [swapped(TWO_STEPS, TEACHER), kept(TWO_STEPS, 0.0)]
    rows = advantages(*rollouts, baseline="before")
    assert rows == [[1.0] * 3, [0.0] * 2]


def test_leaving_one_out_by_hand():
    """Of 1, 0, 0, 0 the others' means are 0, 1/3, 1/3, 1/3; G / (G - 1) times what is
    only centered."""
    options = dict(baseline="leave_one_out", scale_by_std=False)
    rows = advantages(*by_reward(1, 0, 0, 0), **options)
    assert_rows(rows, [[1.0] * 2] + [[-1 / 3] * 2] * 3)
    assert_rows(advantages(*by_reward(1), **options), [[0.0] * 2])


def test_leaving_one_out_of_steps_leaves_all_of_its_own_out():
    """R = (1, 0), (1, 1), (0): the others' means are 2/3, 1/3, 3/4."""
    rollouts = (
        kept(TWO_STEPS, 0.0, verdict(9, 0)),
        kept(TWO_STEPS, 1.0, verdict(9, 9)),
        kept(trajectory(2), 0.0, verdict(0)),
    )
    options = dict(baseline="leave_one_out", scale_by_std=False, credit="step")
    rows = advantages(*rollouts, **options)
    assert_rows(rows, [[1 / 3, -2 / 3], [2 / 3, 2 / 3], [-3 / 4]])


@pytest.mark.parametrize("baseline", ["after", "before", "union", "leave_one_out"])
@pytest.mark.parametrize("scale_by_std", [True, False])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.3])
def test_equal_rewards_give_zeros(baseline, scale_by_std, reward):
    rows = advantages(
        *by_reward(reward, reward, reward), baseline=baseline, scale_by_std=scale_by_std
    )
    assert_rows(rows, [[0.0] * 2] * 3, atol=1e-12)


def test_a_group_of_one_gets_zeros():
    assert advantages(*by_reward(1)) == [[0.0, 0.0]]


def test_without_scaling_rewards_are_only_centered():
    rows = advantages(*by_reward(1, 0, 0, 0), scale_by_std=False)
    assert rows == [[0.75] * 2] + [[-0.25] * 2] * 3


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="'now' is not one of after, before, union"):
        advantages(*by_reward(1, 0), baseline="now")
    with pytest.raises(ValueError, match="'token' is not one of trajectory, step, hyb"):
        advantages(*by_reward(1, 0), credit="token")

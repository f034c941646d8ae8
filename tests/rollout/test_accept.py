"""Who is accepted, by hand: thresholds, aggregation, the soft rule, the first slip."""

import math

import pytest
from fakes import score_of, verdict

from ovd_jax.rollout.accept import (
    first_rejected_step,
    is_accepted,
    make_verdict,
    verdict_on,
)


def accepted(value, *, rule="score", threshold=7.0, correct=True, draw=0.5, beta=2.0):
    return is_accepted(
        value,
        correct=correct,
        rule=rule,
        threshold=threshold,
        levels=10,
        beta=beta,
        draw=draw,
    )


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("min", 2), ("mean", 6), ("last", 7)]
)
def test_steps_count_by_their_minimum_mean_or_last(aggregation, expected):
    scores = [score_of(value) for value in (9, 2, 7)]
    result = make_verdict(scores, None, aggregation=aggregation)
    assert result.value == expected
    assert result.steps == tuple(scores)
    assert result.whole is None


@pytest.mark.parametrize(
    ("steps", "whole", "aggregation", "expected"),
    [
        ((9, 8), 5, "min", 5),
        ((4, 8), 7, "min", 4),
        ((4, 8), 7, "mean", 6),
        ((4, 8), 7, "last", 7),
        ((), 3, "min", 3),
    ],
)
def test_hybrid_takes_the_lower_of_the_steps_and_the_whole(
    steps, whole, aggregation, expected
):
    scores = [score_of(step) for step in steps]
    result = make_verdict(scores, score_of(whole), aggregation=aggregation)
    assert result.value == expected
    assert result.whole == score_of(whole)


def test_threshold_0_accepts_all_and_threshold_10_none():
    for value in range(10):
        assert accepted(value, threshold=0, correct=False)
        assert not accepted(value, threshold=10, correct=True)


def test_a_score_at_the_threshold_is_accepted():
    assert [value for value in range(10) if accepted(value)] == [7, 8, 9]
    assert not accepted(6.999)


def test_right_and_wrong_answers_are_one_to_the_plain_rule():
    assert accepted(7, correct=False)
    assert not accepted(6, correct=True)


@pytest.mark.parametrize(
    ("value", "correct", "expected"),
    [(9, True, True), (9, False, False), (7, True, True), (6, True, False)],
)
def test_score_or_incorrect_wants_both(value, correct, expected):
    assert accepted(value, rule="score_or_incorrect", correct=correct) is expected


@pytest.mark.parametrize(
    ("value", "beta", "chance"),
    [(7, 2.0, 0.367879), (0, 2.0, 0.011109), (8, 0.5, 0.135335), (4.5, 9.0, 0.606531)],
)
def test_soft_accepts_with_probability_exp_of_the_gap_over_beta(value, beta, chance):
    assert math.exp((value - 9) / beta) == pytest.approx(chance, abs=1e-6)
    assert accepted(value, rule="soft", beta=beta, draw=chance - 1e-5)
    assert not accepted(value, rule="soft", beta=beta, draw=chance + 1e-5)


@pytest.mark.parametrize("beta", [1e-3, 2.0, 1e6])
def test_soft_always_accepts_the_best_score(beta):
    almost_one = math.nextafter(1.0, 0.0)
    assert accepted(9, rule="soft", beta=beta, draw=almost_one, correct=False)


def test_unknown_rules_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'hard' is not one of score, score_or_inc"):
        accepted(9, rule="hard")
    with pytest.raises(ValueError, match="'max' is not one of min, mean, last"):
        make_verdict([score_of(1)], None, aggregation="max")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [((9, 6, 3), 1), ((0, 9), 0), ((9, 7, 6), 2), ((9, 8, 8), 1), ((7, 7), 0)],
)
def test_the_first_step_under_the_threshold_or_the_lowest_is_to_blame(steps, expected):
    among = range(len(steps))
    assert first_rejected_step(verdict(*steps), 7, among=among) == expected


def test_only_the_steps_that_count_are_blamed_and_decide():
    judged = verdict(2, 9, 4, 8)
    assert first_rejected_step(judged, 7, among=(1, 2, 3)) == 2
    assert first_rejected_step(judged, 3, among=(1, 2, 3)) == 2  # the lowest of them
    assert verdict_on(judged, (1, 3), aggregation="min").value == 8
    assert verdict_on(judged, (), aggregation="min").value == float("inf")
    whole = verdict(2, 9, whole=5)
    assert verdict_on(whole, (1,), aggregation="min").value == 5
    assert verdict_on(whole, (), aggregation="min").value == 5

"""Acceptance, calibration and AUC of a judge, with numbers worked by hand."""

import pytest

from ovd_jax.evaluation import judge
from ovd_jax.evaluation.judge import JudgedSample
from ovd_jax.teacher.base import Score


def certain(level: int) -> Score:
    return Score(float(level), tuple(float(i == level) for i in range(10)), 0.0)


def sample(value, right, *steps) -> JudgedSample:
    scored = tuple((certain(score), truth) for score, truth in steps)
    return JudgedSample(value, value, right, scored, tuple(x for x, _ in scored))


SAMPLES = [
    sample(9, True, (9, True), (9, True)),
    sample(5, True, (5, True)),
    sample(7, False, (8, True), (7, False)),
    sample(2, False, (2, False)),
]


@pytest.mark.parametrize(
    ("threshold", "accepted", "precision", "recall"),
    [(1, 1.0, 0.5, 1.0), (5, 0.75, 2 / 3, 1.0), (7, 0.5, 0.5, 0.5), (8, 0.25, 1, 0.5)],
)
def test_acceptance_has_precision_and_recall(threshold, accepted, precision, recall):
    row = judge.acceptance(SAMPLES, threshold)
    assert row["accepted"] == accepted
    assert row["accepted_right"] == pytest.approx(precision)
    assert row["right_accepted"] == recall
    both = 2 * precision * recall / (precision + recall)
    assert row["f1"] == pytest.approx(both)


def test_nothing_accepted_has_no_precision_and_no_f1():
    row = judge.acceptance(SAMPLES[3:], 5)
    assert (row["accepted_right"], row["right_accepted"], row["f1"]) == (None, None, 0)


def test_the_measures_count_steps_and_solutions():
    found = judge.measures(SAMPLES, range(11))
    assert (found["solutions"], found["accuracy"]) == (4, 0.5)
    assert (found["steps"], found["steps_right"]) == (6, 4 / 6)
    assert found["right_with_wrong_steps"] == 0.0
    lucky = judge.measures(
        [*SAMPLES, sample(7, True, (7, True), (1, False))], range(11)
    )
    assert lucky["right_with_wrong_steps"] == 1 / 3
    # Right steps 9, 9, 5, 8 against wrong ones 7, 2: one of eight pairs is lost.
    assert found["auc_steps"] == 7 / 8
    # Right solutions 9, 5 against wrong ones 7, 2.
    assert found["auc_solutions"] == 3 / 4
    assert found["recommended_threshold"] == 3  # 3 to 5 accept all that is right
    assert [row["threshold"] for row in found["thresholds"]] == list(range(1, 10))


def test_grades_of_right_steps_do_not_count_where_a_threshold_tells_them_from_wrong():
    """A right step of 6 and a wrong one that is 9 nine times in ten: by their means the
    wrong one is ahead, by their chances of 5 the right one is."""
    six, torn = certain(6), Score(9.0, (0.1, *[0.0] * 8, 0.9), 0.0)
    samples = [
        JudgedSample(6.0, 6.0, True, ((six, True),), (six,)),
        JudgedSample(9.0, 8.1, False, ((torn, False),), (torn, six)),
    ]
    found = judge.measures(samples, range(11))
    assert (found["auc_steps"], found["auc_solutions"]) == (0.0, 0.0)
    row = found["thresholds"][4]
    assert (row["threshold"], row["auc_steps"], row["auc_solutions"]) == (5, 1.0, 1.0)
    assert found["thresholds"][6]["auc_steps"] == 0.0


def test_a_judge_that_knows_the_shares_is_calibrated():
    seven = Score(5.0, (0.3, 0, 0, 0, 0, 0.7, 0, 0, 0, 0), 0.0)
    steps = [(seven, i < 7) for i in range(10)]
    (row,) = judge.reliability(steps, 5)
    assert row == {"count": 10, "claimed": pytest.approx(0.7), "right": 0.7}
    assert judge.calibration_error([row]) == pytest.approx(0.0)
    bins = judge.reliability([*steps, (certain(9), False)], 5)
    assert judge.calibration_error(bins) == pytest.approx(1 / 11)
    assert judge.calibration_error([]) is None


def test_mean_scores_make_a_value_as_verdicts_do():
    half = Score(9.0, (0.5, *[0.0] * 8, 0.5), 0.0)
    assert judge.expected_value([certain(7), half], None, "min") == 4.5
    assert judge.expected_value([certain(7), half], certain(3), "mean") == 3
    assert judge.expected_value([], certain(3), "min") == 3

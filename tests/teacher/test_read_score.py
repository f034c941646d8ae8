"""Reading scores off distributions."""

import collections
import random

import numpy as np
import pytest

from ovd_jax.errors import TeacherError
from ovd_jax.teacher.base import read_score

SPREAD = (0.5, 0.25, 0.25)


def read(masses, *, rule="sample", temperature=1.0, seed=0):
    return read_score(
        masses, rule=rule, temperature=temperature, rng=random.Random(seed)
    )


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, (1 / 2, 1 / 4, 1 / 4)),
        (0.5, (4 / 6, 1 / 6, 1 / 6)),  # squares: 4 : 1 : 1
        (0.7, (0.573739, 0.213131, 0.213131)),  # 2^(1/0.7) = 2.69180 : 1 : 1
        (1e-3, (1.0, 0.0, 0.0)),
        (1e-320, (1.0, 0.0, 0.0)),
        (0.0, (1.0, 0.0, 0.0)),  # the limit
        (1e9, (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_scores_are_drawn_from_the_tempered_distribution(temperature, expected):
    rng = random.Random(0)
    draws = collections.Counter(
        read_score(SPREAD, rule="sample", temperature=temperature, rng=rng).value
        for _ in range(20_000)
    )
    shares = [draws[value] / 20_000 for value in range(3)]
    np.testing.assert_allclose(shares, expected, atol=0.015)


def test_a_draw_is_a_function_of_its_random_state():
    draws = [read((0.1,) * 10, seed=seed).value for seed in range(50)]
    assert draws == [read((0.1,) * 10, seed=seed).value for seed in range(50)]
    assert len(set(draws)) > 5


def test_tempering_does_not_change_the_distribution_that_is_kept():
    score = read((0.4, 0.2, 0.2), temperature=0.1)
    np.testing.assert_allclose(score.probs, SPREAD)


def test_tiny_probabilities_survive_a_low_temperature():
    assert read((1e-300, 1e-310, 0.0), temperature=0.01).value == 0


def test_argmax_takes_the_likeliest_and_the_lower_of_equals():
    assert read((0.1, 0.2, 0.4, 0.3), rule="argmax").value == 2
    assert read((0.1, 0.4, 0.1, 0.4), rule="argmax").value == 1


def test_expected_is_the_mean_of_the_normalized_distribution():
    """Masses 0.2, 0, 0.6 are 1/4, 0, 3/4: 2 * 3/4."""
    score = read((0.2, 0.0, 0.6), rule="expected")
    assert score.value == pytest.approx(1.5)
    assert score.probs == pytest.approx((0.25, 0.0, 0.75))


@pytest.mark.parametrize("rule", ["sample", "argmax", "expected"])
def test_mass_outside_the_labels_is_reported_and_normalized_away(rule):
    score = read((0.1, 0.2, 0.1), rule=rule)
    assert score.outside == pytest.approx(0.6)
    assert sum(score.probs) == pytest.approx(1.0)
    assert read((0.5, 0.5 + 1e-9), rule=rule).outside == 0.0  # rounding, not less


@pytest.mark.parametrize("rule", ["sample", "argmax", "expected"])
@pytest.mark.parametrize("masses", [(0.0, 0.0), (), (float("nan"), 0.5)])
def test_no_mass_on_any_label_is_an_error_of_the_teachers(rule, masses):
    with pytest.raises(TeacherError, match="no probability to any score label"):
        read(masses, rule=rule)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'mode' is not one of sample, argmax, expec"):
        read(SPREAD, rule="mode")

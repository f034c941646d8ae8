"""The paper's statements, by enumeration: which hold, and where not."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import enumeration

THRESHOLDS = range(11)
SETTINGS = [
    enumeration.make_setting(student=student, teacher=teacher, seed=seed)
    for seed, (student, teacher) in enumerate([(0.0, 3.0), (1.0, 2.0), (3.0, 6.0)])
]


def parts(setting, threshold):
    student_Y, slopes_YW = setting.tree.policy(setting.logits_CA)
    accepted_Y = enumeration.accepted(setting.scores_YS, threshold)
    return student_Y, slopes_YW, accepted_Y


def differences(function, logits_CA) -> np.ndarray:
    """The gradient of a number by central differences."""
    found = []
    for place in np.ndindex(*logits_CA.shape):
        step = np.zeros_like(logits_CA)
        step[place] = 1e-5
        found.append((function(logits_CA + step) - function(logits_CA - step)) / 2e-5)
    return np.array(found)


@pytest.fixture(params=SETTINGS, ids=["weak", "middling", "strong"])
def setting(request):
    return request.param


def test_a_policy_by_hand():
    tree = enumeration.Tree(steps=2, choices=2)
    logits_CA = np.log([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]])
    probs_Y, slopes_YW = tree.policy(logits_CA)
    assert tree.paths_YK.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    np.testing.assert_allclose(probs_Y, [0.125, 0.125, 0.075, 0.675])
    np.testing.assert_allclose(slopes_YW[2], [-0.25, 0.25, 0, 0, 0.9, -0.9])


def test_the_slopes_are_those_of_the_log_probabilities(setting):
    _, slopes_YW = setting.tree.policy(setting.logits_CA)
    for y in (0, 17, 80):
        found = differences(
            lambda x, y=y: np.log(setting.tree.policy(x)[0][y]), setting.logits_CA
        )
        np.testing.assert_allclose(slopes_YW[y], found, atol=1e-8)


def test_the_mixture_of_eq_25_is_a_distribution_and_that_of_eq_6_is_not(setting):
    for threshold in THRESHOLDS:
        student_Y, _, accepted_Y = parts(setting, threshold)
        mixture = (student_Y, setting.teacher_Y, accepted_Y)
        p_Y, alpha = enumeration.mixture(*mixture)
        np.testing.assert_allclose(p_Y.sum(), 1.0)
        total = enumeration.mixture_as_written(*mixture).sum()
        np.testing.assert_allclose(total, 1 - alpha * (1 - alpha))


def test_the_estimator_is_unbiased_for_eq_35_and_for_nothing_else(setting):
    rng = np.random.default_rng(0)
    count = 200_000
    student_Y, slopes_YW, accepted_Y = parts(setting, 7)
    p_Y, _ = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
    drawn = enumeration.sample(setting, 7, count=count, rng=rng)
    found_Y = np.bincount(drawn, minlength=len(p_Y)) / count
    estimate_W = enumeration.gradient(found_Y, setting.rewards_Y, slopes_YW)
    noise = enumeration.variance(p_Y, setting.rewards_Y, slopes_YW) / count

    def error(exact_W):
        return ((estimate_W - exact_W) ** 2).sum() / noise

    assert error(enumeration.gradient(p_Y, setting.rewards_Y, slopes_YW)) < 3
    assert error(enumeration.gradient(student_Y, setting.rewards_Y, slopes_YW)) > 100
    objective_W = enumeration.objective_gradient(
        student_Y, setting.teacher_Y, accepted_Y, setting.rewards_Y, slopes_YW
    )
    assert error(objective_W) > 100


def test_eq_35_is_the_slope_of_a_surrogate_whose_distribution_is_held_still(setting):
    student_Y, slopes_YW, accepted_Y = parts(setting, 6)
    p_Y, _ = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
    weights_Y = p_Y * setting.rewards_Y
    found = differences(
        lambda x: weights_Y @ np.log(setting.tree.policy(x)[0]), setting.logits_CA
    )
    expected = enumeration.gradient(p_Y, setting.rewards_Y, slopes_YW)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_the_slope_of_eq_31_is_another_one(setting):
    student_Y, slopes_YW, accepted_Y = parts(setting, 6)

    def objective(logits_CA):
        student_Y, _ = setting.tree.policy(logits_CA)
        p_Y, _ = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
        return p_Y @ setting.rewards_Y

    exact_W = enumeration.objective_gradient(
        student_Y, setting.teacher_Y, accepted_Y, setting.rewards_Y, slopes_YW
    )
    found_W = differences(objective, setting.logits_CA)
    np.testing.assert_allclose(found_W, exact_W, atol=1e-8)
    p_Y, _ = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
    eq_35_W = enumeration.gradient(p_Y, setting.rewards_Y, slopes_YW)
    assert np.linalg.norm(eq_35_W - exact_W) > 0.1 * np.linalg.norm(eq_35_W)


def test_without_rejection_all_gradients_are_that_of_the_students_reward(setting):
    student_Y, slopes_YW, accepted_Y = parts(setting, 0)
    p_Y, alpha = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
    np.testing.assert_allclose(alpha, 1.0)
    expected_W = enumeration.gradient(student_Y, setting.rewards_Y, slopes_YW)
    found_W = enumeration.gradient(p_Y, setting.rewards_Y, slopes_YW)
    np.testing.assert_allclose(found_W, expected_W, atol=1e-12)


def test_variance_changes_by_an_identity(setting):
    r, teacher_Y = setting.rewards_Y, setting.teacher_Y
    for threshold in THRESHOLDS:
        student_Y, slopes_YW, accepted_Y = parts(setting, threshold)
        p_Y, alpha = enumeration.mixture(student_Y, teacher_Y, accepted_Y)
        removed = enumeration.second_moment(student_Y * (1 - accepted_Y), r, slopes_YW)
        added = (1 - alpha) * enumeration.second_moment(teacher_Y, r, slopes_YW)
        norms = [
            np.sum(enumeration.gradient(x, r, slopes_YW) ** 2) for x in (student_Y, p_Y)
        ]
        change = enumeration.variance(p_Y, r, slopes_YW) - enumeration.variance(
            student_Y, r, slopes_YW
        )
        np.testing.assert_allclose(
            change, added - removed + norms[0] - norms[1], atol=1e-12
        )


def bound(student_Y, accepted_Y, rewards_Y, slopes_YW) -> float:
    """The right-hand side of eq. 8."""
    removed = enumeration.second_moment(
        student_Y * (1 - accepted_Y), rewards_Y, slopes_YW
    )
    return enumeration.variance(student_Y, rewards_Y, slopes_YW) - removed


def test_eq_8_fails_where_everything_is_replaced(setting):
    student_Y, slopes_YW, accepted_Y = parts(setting, 10)
    assert accepted_Y.max() == 0
    assert bound(student_Y, accepted_Y, setting.rewards_Y, slopes_YW) < 0
    assert enumeration.variance(setting.teacher_Y, setting.rewards_Y, slopes_YW) >= 0


@pytest.mark.parametrize(("precision", "holds"), [(0.45, False), (0.55, True)])
def test_eq_8_with_one_right_trajectory_holds_where_most_accepted_are_right(
    precision, holds
):
    """A teacher who always gives it; right ones are accepted, and as many others as
    make `precision`."""
    setting = SETTINGS[1]
    student_Y, slopes_YW = setting.tree.policy(setting.logits_CA)
    right_Y = np.eye(len(student_Y))[student_Y.argmax()]
    share = student_Y.max()
    accepted_Y = np.where(right_Y == 1, 1.0, share * (1 / precision - 1) / (1 - share))
    p_Y, _ = enumeration.mixture(student_Y, right_Y, accepted_Y)
    limit = bound(student_Y, accepted_Y, right_Y, slopes_YW)
    assert (enumeration.variance(p_Y, right_Y, slopes_YW) <= limit) == holds


def test_eq_17_is_an_identity_for_eq_25(setting):
    for threshold in range(10):
        student_Y, _, accepted_Y = parts(setting, threshold)
        everything = (student_Y, setting.teacher_Y, accepted_Y)
        p_Y, alpha = enumeration.mixture(*everything)
        gap = enumeration.performance_gap(*everything, setting.rewards_Y)
        earned = setting.teacher_Y @ setting.rewards_Y
        expected = (1 - alpha * gap) * earned
        np.testing.assert_allclose(p_Y @ setting.rewards_Y, expected, rtol=1e-12)
        written = enumeration.mixture_as_written(*everything) @ setting.rewards_Y
        assert (abs(written - expected) > 1e-3) == (alpha < 0.998)


def test_the_gap_is_undefined_without_accepted_ones_or_a_teacher_who_earns(setting):
    student_Y, _, accepted_Y = parts(setting, 10)
    teacher_Y, rewards_Y = setting.teacher_Y, setting.rewards_Y
    assert np.isnan(
        enumeration.performance_gap(student_Y, teacher_Y, accepted_Y, rewards_Y)
    )
    assert np.isnan(
        enumeration.performance_gap(student_Y, teacher_Y, accepted_Y + 1, 0 * rewards_Y)
    )


@pytest.mark.parametrize("levels", [2, 3, 5, 10, 11, 100])
def test_quantization_by_rounding_and_by_floor(levels):
    step = 1 / (levels - 1)
    quality = (np.arange(100_000) + 0.5) / 100_000
    errors = {
        how: np.abs(quality - enumeration.quantize(quality, levels, how=how))
        for how in ("round", "floor")
    }
    assert errors["round"].max() <= step / 2 * (1 + 1e-9)
    np.testing.assert_allclose(errors["round"].mean(), step / 4, rtol=1e-3)
    assert errors["floor"].max() < step
    np.testing.assert_allclose(errors["floor"].mean(), step / 2, rtol=1e-3)
    # Eq. 10 is about the mean of any distribution; one under the end of a cell has it.
    near = np.array([step * (1 - 1e-3)])
    assert np.abs(near - enumeration.quantize(near, levels, how="floor")) > 0.9 * step


def test_a_floor_gives_the_best_score_to_perfection_alone():
    quality = np.array([0.999, 1.0])
    assert enumeration.quantize(quality, 10, how="floor").tolist() == [8 / 9, 1.0]
    assert enumeration.quantize(quality, 10, how="round").tolist() == [1.0, 1.0]


def test_a_scale_has_two_levels():
    with pytest.raises(ValueError, match="levels 1: a scale has at least 2"):
        enumeration.quantize(np.zeros(1), 1, how="round")


@pytest.mark.parametrize(
    ("judge", "change"), [("informed", 0.2), ("blind", 0.0), ("adverse", -0.1)]
)
def test_alpha_rises_in_training_where_scores_agree_with_rewards(judge, change):
    setting = enumeration.make_setting(student=0.5, teacher=2.0, judge=judge)
    rows = enumeration.train(setting, threshold=6, rate=1.0, steps=150)
    alphas = [row["alpha"] for row in rows]
    if change > 0:
        assert alphas[-1] - alphas[0] > change
    elif change < 0:
        assert alphas[-1] - alphas[0] < change
    else:
        np.testing.assert_allclose(alphas, alphas[0], rtol=1e-12)
    assert rows[-1]["student"] > rows[0]["student"] + 0.2  # rewards rise in any case


def test_eq_22_does_not_follow():
    """alpha = 1 in the end, and the student is not the teacher, but better."""
    setting = enumeration.make_setting(student=0.5, teacher=1.0)
    rows = enumeration.train(setting, threshold=0, rate=1.0, steps=300)
    earned = setting.teacher_Y @ setting.rewards_Y
    assert rows[-1]["alpha"] == pytest.approx(1.0)
    assert rows[-1]["student"] > earned + 0.2

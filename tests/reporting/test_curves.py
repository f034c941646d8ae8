"""Pictures come out for runs of any length and with any of the metrics missing."""

import numpy as np
import pytest

from ovd_jax.reporting.curves import plot_comparison, plot_run
from ovd_jax.reporting.panels import mean_curve, smooth, spread


def rows(steps):
    """Metrics of a made-up run, held-out accuracy at every tenth step."""
    return [
        {
            "step": step,
            "reward_before": step / 100,
            "reward_after": 0.8,
            "acceptance_rate": step / 100,
            "teacher_share": 1 - step / 100,
            "score_histogram": [step, 1, 0, 0, 0, 0, 3, 0, 0, 4],
            "accuracy": step / 100,
            "searches": 1.0,
            "searches/nq": 1 + step / 100,
            "em/nq": step / 100,
        }
        | ({"eval_accuracy": 0.3, "eval_em/nq": 0.3} if step % 10 == 0 else {})
        for step in range(steps)
    ]


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_a_run_of_any_length_is_drawn(tmp_path, steps):
    plot_run(rows(steps), tmp_path / "curves.png", teacher_accuracy=0.8, title="run")
    assert is_png(tmp_path / "curves.png")


def test_missing_metrics_and_nulls_are_left_out(tmp_path):
    metrics = [
        {"step": 0, "accuracy": 0.1, "reward_before": None},
        {"step": 1, "accuracy": None, "score_histogram": [0] * 10},
        {"step": 2, "eval_accuracy": 0.5},
    ]
    plot_run(metrics, tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")


def test_a_comparison_is_drawn_with_unequal_and_empty_seeds(tmp_path):
    series = {
        "OVD": [[(0, 0.1), (10, 0.6)], [(0, 0.2), (5, 0.5)]],
        "RLVR": [[(0, 0.1)]],
        "none": [[]],
    }
    panels = {"training step": series, "seconds": {"OVD": series["OVD"]}}
    plot_comparison(panels, tmp_path / "c.png", title="Accuracy", ylabel="accuracy")
    assert is_png(tmp_path / "c.png")


def test_the_mean_curve_covers_the_steps_all_seeds_reached():
    seeds = [np.array([(0, 0.0), (10, 1.0)]), np.array([(0, 0.4), (5, 0.5)])]
    steps, mean, deviation = mean_curve(seeds)
    np.testing.assert_array_equal(steps, [0, 5])
    np.testing.assert_allclose(mean, [0.2, 0.5])
    np.testing.assert_allclose(deviation, [0.4 / 2**0.5, 0.0])


def test_smoothing_keeps_constants_and_gaps():
    values = np.full(60, 0.5)
    values[7] = np.nan
    np.testing.assert_allclose(smooth(values), values)


def test_labels_are_spread_only_where_they_would_overlap():
    np.testing.assert_allclose(spread([0.1, 0.5], gap=0.1), [0.1, 0.5])
    np.testing.assert_allclose(spread([0.5, 0.5], gap=0.1), [0.45, 0.55])

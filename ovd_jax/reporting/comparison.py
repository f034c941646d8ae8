"""Table and plots of a comparison of runs.

A row is a dict: `run`, `test`, `seeds`, and `sets`, a `spread` by the name of the set.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ovd_jax.reporting.bars import plot_bars
from ovd_jax.reporting.curves import plot_comparison
from ovd_jax.reporting.panels import STEP, smooth
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import read_metrics


def spread(values: Sequence[Mapping[str, float]]) -> dict:
    """The mean over seeds and its error: their standard deviation, or, with one seed,
    half of the bootstrap interval."""
    by_seed = [value["value"] for value in values]
    error = (values[0]["high"] - values[0]["low"]) / 2
    if len(by_seed) > 1:
        error = statistics.stdev(by_seed)
    return {"mean": statistics.fmean(by_seed), "error": error, "by_seed": by_seed}


def print_table(
    rows: Sequence[dict], seeds: Sequence[int], *, several_tests: bool
) -> None:
    """One line for each run and test, one column for each set."""
    sets = list(dict.fromkeys(name for row in rows for name in row["sets"]))
    results_table(
        f"Accuracy in %, seeds {', '.join(map(str, seeds))}",
        ["run", *["test"] * several_tests, "seeds", *sets],
        [
            [row["run"], *[row["test"]] * several_tests, len(row["seeds"])]
            + [shown(row["sets"].get(name)) for name in sets]
            for row in rows
        ],
    )


def shown(value: dict | None) -> str:
    """`45.5 ± 1.2`; empty without a value."""
    return f"{100 * value['mean']:.1f} ± {100 * value['error']:.1f}" if value else ""


def plot_sets(rows: Sequence[dict], folder: Path, *, several_tests: bool) -> None:
    """Bars of the accuracy on each set."""
    labels = [row["run"] + f", {row['test']}" * several_tests for row in rows]
    plot_bars(
        {label: row["sets"] for label, row in zip(labels, rows, strict=True)},
        folder / "sets.png",
        title="Accuracy by set",
        ylabel="accuracy",
    )


def plot_curves(run_dirs: Mapping[str, Sequence[Path]], folder: Path) -> None:
    """Curves of reward and accuracy over the steps, one a run directory; `run_dirs` has
    those of each run by its label."""
    for metric, title in {
        "reward_before": "Reward of the student's own trajectories",
        "eval_accuracy": "Held-out accuracy",
    }.items():
        curves = {
            label: list(filter(None, [curve(run_dir, metric) for run_dir in paths]))
            for label, paths in run_dirs.items()
        }
        plot_comparison(
            {STEP: {label: series for label, series in curves.items() if series}},
            folder / f"{metric}.png",
            title=title,
            ylabel=metric.replace("_", " "),
        )


def curve(run_dir: Path, metric: str) -> list[tuple[int, float]]:
    """(step, rolling mean) of a training; unsmoothed for held-out accuracy, which few
    steps measure."""
    rows = [row for row in read_metrics(run_dir) if row.get(metric) is not None]
    values = np.array([row[metric] for row in rows])
    if metric != "eval_accuracy":
        values = smooth(values)
    return list(zip([row["step"] for row in rows], values.tolist(), strict=True))

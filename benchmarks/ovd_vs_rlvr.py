"""OVD against RLVR at an equal budget of student samples (Figures 5 and 6 in small).

    python benchmarks/ovd_vs_rlvr.py
    python benchmarks/ovd_vs_rlvr.py --config.num_steps=100

Trains the embedded student at thresholds 0 (RLVR: all accepted), 5, 7 and 10 (all
replaced), three seeds each, and compares held-out accuracy over the steps. Outcome
rewards alone are noisier than a teacher's trajectories, so RLVR is tried with a tenth
of the learning rate as well. Complete runs are not repeated. Writes
benchmarks/results/ovd_vs_rlvr.{json,png}.
"""

import statistics
import time
from pathlib import Path

import record

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.reporting.curves import plot_comparison
from ovd_jax.reporting.panels import STEP
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import read_metrics

METHODS = {  # what each changes in the config
    "RLVR": {"threshold": 0},
    "RLVR, learning rate / 10": {"threshold": 0, "optimizer.learning_rate": 3e-5},
    "OVD, threshold 5": {"threshold": 5},
    "OVD, threshold 7": {"threshold": 7},
    "OVD, threshold 10": {"threshold": 10},
}
SEEDS = (0, 1, 2)


def main(config, output):
    """Runs what is missing, then writes table, plot and JSON."""
    started = time.time()
    runs = {
        method: [accuracy_curve(config, index, seed) for seed in SEEDS]
        for index, method in enumerate(METHODS)
    }
    rows = [row(method, curves) for method, curves in runs.items()]
    plot_comparison(
        {STEP: runs},
        output.path(".png"),
        title="OVD and RLVR on the quickstart task, equal student samples",
        ylabel="held-out accuracy",
    )
    samples = config.problems_per_step * config.samples * config.num_steps
    results_table(
        f"Held-out accuracy after {samples:,} student samples, {len(SEEDS)} seeds",
        ("method", "before", "after", "by seed", "mean over steps"),
        [
            (
                r["method"],
                f"{r['before']:.1%}",
                f"{r['after']:.1%}",
                " ".join(f"{value:.1%}" for value in r["after_by_seed"]),
                f"{r['mean_over_steps']:.1%}",
            )
            for r in rows
        ],
    )
    result = {"student_samples": samples, "seeds": SEEDS, "rows": rows}
    output.write(result | {"curves": runs})
    flags.summary(**result, seconds=round(time.time() - started, 1))


def accuracy_curve(config, index: int, seed: int) -> list[tuple[int, float]]:
    """(step, held-out accuracy) of one run of method number `index`, trained now unless
    it already is."""
    run_config = config.copy_and_resolve_references()
    run_config.run_dir = f"{config.run_dir}/ovd_vs_rlvr/{index}-seed{seed}"
    run_config.update_from_flattened_dict(list(METHODS.values())[index])
    run_config.seed = seed
    if not is_complete(run_config):
        train.main(run_config)
    return [
        (row["step"], row["eval_accuracy"])
        for row in read_metrics(run_config.run_dir)
        if "eval_accuracy" in row
    ]


def is_complete(config) -> bool:
    """Whether the run directory holds a finished run of exactly this config."""
    folder = Path(config.run_dir)
    if not (folder / "config.json").is_file():
        return False
    same = (folder / "config.json").read_text() == flags.to_text(config)
    return same and (folder / "curves.png").is_file()


def row(method: str, curves) -> dict:
    """The table row of one method."""
    after = [curve[-1][1] for curve in curves]
    return {
        "method": method,
        "before": statistics.fmean(curve[0][1] for curve in curves),
        "after": statistics.fmean(after),
        "after_by_seed": after,
        "mean_over_steps": statistics.fmean(
            value for curve in curves for _, value in curve
        ),
    }


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/ovd_vs_rlvr.py")

"""OVD against RLVR at an equal budget of student samples (Figures 5 and 6 in small).

    python benchmarks/ovd_vs_rlvr.py
    python benchmarks/ovd_vs_rlvr.py --config.num_steps=100

Trains the embedded student at thresholds 0 (RLVR: all accepted), 5, 7 and 10 (all
replaced), three seeds each, and compares held-out accuracy over the steps. Complete
runs are not repeated. Writes benchmarks/results/ovd_vs_rlvr.{json,png}.
"""

import json
import statistics
import time
from pathlib import Path

from ovd_jax import flags, train
from ovd_jax.curves import plot_comparison
from ovd_jax.progress import results_table
from ovd_jax.run_dir import read_metrics

THRESHOLDS = (0, 5, 7, 10)
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results"


def main(config):
    """Runs what is missing, then writes table, plot and JSON."""
    started = time.time()
    runs = {
        threshold: [accuracy_curve(config, threshold, seed) for seed in SEEDS]
        for threshold in THRESHOLDS
    }
    rows = [row(threshold, curves) for threshold, curves in runs.items()]
    RESULTS.mkdir(exist_ok=True)
    plot_comparison(
        {label(threshold): curves for threshold, curves in runs.items()},
        RESULTS / "ovd_vs_rlvr.png",
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
    text = json.dumps(result | {"curves": runs}, indent=1) + "\n"
    (RESULTS / "ovd_vs_rlvr.json").write_text(text)
    flags.summary(**result, seconds=round(time.time() - started, 1))


def label(threshold: int) -> str:
    """The method's name at a threshold."""
    return "RLVR (threshold 0)" if threshold == 0 else f"OVD, threshold {threshold}"


def accuracy_curve(config, threshold: int, seed: int) -> list[tuple[int, float]]:
    """(step, held-out accuracy) of one run, trained now unless it already is."""
    run_config = config.copy_and_resolve_references()
    run_config.run_dir = f"{config.run_dir}/ovd_vs_rlvr/t{threshold}-s{seed}"
    run_config.threshold = threshold
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


def row(threshold: int, curves) -> dict:
    """The table row of one threshold."""
    after = [curve[-1][1] for curve in curves]
    return {
        "method": label(threshold),
        "threshold": threshold,
        "before": statistics.fmean(curve[0][1] for curve in curves),
        "after": statistics.fmean(after),
        "after_by_seed": after,
        "mean_over_steps": statistics.fmean(
            value for curve in curves for _, value in curve
        ),
    }


if __name__ == "__main__":
    flags.run(main, doc=__doc__, default="benchmarks/configs/ovd_vs_rlvr.py")

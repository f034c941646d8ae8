"""Every method at an equal budget of samples, and at an equal budget of time.

    python benchmarks/methods.py
    python benchmarks/methods.py "--config.seeds=(0,)" "--config.methods=('ovd',)"

Trains the embedded student by each method, three seeds each, and compares held-out
accuracy over the samples (of the student; where it has none, solutions of the teacher)
and over the seconds spent on collecting and learning: steps times the median step, so
that compilations do not count. Complete runs are not repeated, so that they may be made
one by one; the median step is that of the last seed's run, for all seeds, so that those
before it may be run on other machines. Writes benchmarks/results/methods.{json,png}.
"""

import statistics
import time

import numpy as np
import record
from ovd_vs_rlvr import is_complete

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.reporting.curves import plot_comparison
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import read_metrics

ALONE = {"problems_per_step": 128, "samples": 1}  # groups are of no use to it
GROUPS = {"problems_per_step": 32, "samples": 4}  # it needs some that differ
METHODS = {  # what each changes in the config
    "ovd": {"method": "ovd"},
    "grpo": {"method": "grpo", "optimizer.learning_rate": 1e-5, **GROUPS},
    "seq_kd": {"method": "seq_kd", **ALONE},
    "rejection_ft": {
        "method": "rejection_ft", "threshold": 0, "optimizer.learning_rate": 1e-5,
        **GROUPS,
    },
    "token_kd": {"method": "token_kd", **ALONE},
    "on_policy_kd, reverse KL": {
        "method": "on_policy_kd", "distill.divergence": "reverse_kl", **ALONE,
    },
    "on_policy_kd, policy gradient": {
        "method": "on_policy_kd", "distill.divergence": "policy_gradient", **ALONE,
        "optimizer.learning_rate": 3e-5,
    },
    "dpo_pairs": {"method": "dpo_pairs", "optimizer.learning_rate": 1e-5},
}  # fmt: skip


def main(config, output):
    """Runs what is missing, then writes table, plot and JSON."""
    started = time.time()
    unknown = set(config.methods) - set(METHODS)
    if unknown:
        raise UserError(f"methods {sorted(unknown)} are not among {list(METHODS)}.")
    runs = {
        name: [curve(config, index, changes, seed) for seed in config.seeds]
        for index, (name, changes) in enumerate(METHODS.items())
        if name in (config.methods or METHODS)
    }
    for seeds in runs.values():
        add_seconds(seeds)
    seconds = min(run["seconds"][-1] for seeds in runs.values() for run in seeds)
    rows = [row(name, seeds, seconds) for name, seeds in runs.items()]
    samples = config.problems_per_step * config.samples * config.num_steps
    plot_comparison(
        {axis: series(runs, axis) for axis in ("samples", "seconds")},
        output.path(".png"),
        title="Methods on the quickstart task",
        ylabel="held-out accuracy",
    )
    results_table(
        f"Held-out accuracy, {len(config.seeds)} seeds, from {rows[0]['before']:.1%}",
        ("method", f"{samples:,} samples", f"{seconds:.0f} s", "a step"),
        [
            (
                r["method"],
                described(r["by_samples"]),
                described(r["by_seconds"]),
                f"{r['seconds_a_step']:.2f} s",
            )
            for r in rows
        ],
    )
    result = {"samples": samples, "seconds": seconds, "seeds": config.seeds}
    output.write(result | {"rows": rows, "curves": runs})
    flags.summary(**result, rows=rows, seconds_in_all=round(time.time() - started, 1))


def curve(config, index: int, changes: dict, seed: int) -> dict:
    """Accuracies of one run of method number `index`, trained now unless it already is,
    with the steps and samples until each, and the seconds of the median step."""
    run_config = record.for_training(config)
    run_config.run_dir = f"{config.run_dir}/methods/{index}-seed{seed}"
    run_config.update_from_flattened_dict(changes)
    run_config.seed = seed
    if not is_complete(run_config):
        train.main(run_config)
    rows = read_metrics(run_config.run_dir)
    step = statistics.median(
        row["seconds_collect"] + row["seconds_update"] for row in rows[:-1]
    )
    measured = [row for row in rows if "eval_accuracy" in row]
    samples = run_config.problems_per_step * run_config.samples
    return {
        "step": step,
        "steps": [row["step"] for row in measured],
        "samples": [samples * row["step"] for row in measured],
        "accuracy": [row["eval_accuracy"] for row in measured],
    }


def add_seconds(seeds: list[dict]) -> None:
    """Adds the seconds until each accuracy: by the median step of the last seed."""
    for run in seeds:
        run["seconds"] = [seeds[-1]["step"] * step for step in run["steps"]]


def series(runs, axis: str) -> dict:
    """What is plotted: pairs of (samples or seconds, accuracy) of each run."""
    return {
        name: [list(zip(run[axis], run["accuracy"], strict=True)) for run in seeds]
        for name, seeds in runs.items()
    }


def row(name: str, seeds: list[dict], seconds: float) -> dict:
    """The table row of one method; accuracies are by seed."""
    return {
        "method": name,
        "before": statistics.fmean(run["accuracy"][0] for run in seeds),
        "by_samples": [run["accuracy"][-1] for run in seeds],
        "by_seconds": [
            float(np.interp(seconds, run["seconds"], run["accuracy"])) for run in seeds
        ],
        "seconds_a_step": seeds[-1]["step"],
    }


def described(values: list[float]) -> str:
    """The mean, and the standard deviation if there are several."""
    spread = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1%}{spread}"


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/methods.py")

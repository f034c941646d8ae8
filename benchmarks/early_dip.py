"""Why held-out accuracy falls in the first steps of the quickstart.

    python benchmarks/early_dip.py

The embedded student comes from a fine-tuning whose learning rate ended at 0. Part
`supervised`: the same fine-tuning goes on, on right solutions, with no teacher, no
rewards and no policy gradient, for as many optimizer steps as ten rollout batches have,
at the quickstart's learning rate and at a third of it. Part `training`: the first
twenty rollout batches of the quickstart, and of variants that change one thing each.
Greedy held-out accuracy, three seeds. Complete runs are not repeated. Writes
benchmarks/results/early_dip.json.
"""

import json
from collections.abc import Callable
from pathlib import Path

import record
from quickstart_search import tested

from ovd_jax import sft, train
from ovd_jax.cli import flags
from ovd_jax.reporting.run_dir import read_metrics

RATES = (3e-4, 1e-4)
VARIANTS = {  # what each changes in the quickstart
    "quickstart": {},
    "no judge: all replaced": {"threshold": 10},
    "no policy gradient: SeqKD": {"method": "seq_kd"},
    "one epoch": {"epochs": 1},
    "128 problems of one sample": {
        "problems_per_step": 128, "samples": 1, "baseline": "before",
    },
    "learning rate / 3": {"optimizer.learning_rate": 1e-4},
}  # fmt: skip


def main(config, output):
    """Runs the parts, and keeps those of earlier runs that were not asked for."""
    record.run_parts(config, output, PARTS)


def supervised(config) -> list[dict]:
    """Accuracy before and after further fine-tuning, by learning rate and seed."""
    before = accuracy(config, "quickstart")
    rows = []
    for rate in RATES:
        for seed in config.seeds:
            steps = config.optimizer_steps
            folder = f"{config.run_dir}/supervised-{rate}-{steps}-{seed}"
            options = flags.load_file("configs/quickstart_student.py")
            options.update_from_flattened_dict({
                "model": "quickstart", "num_steps": steps,
                "seed": 1 + seed,  # 0 is that of the student's own fine-tuning
                "run_dir": folder, "optimizer.learning_rate": rate,
                "optimizer.schedule": "constant", "optimizer.warmup_steps": 10.0,
            })  # fmt: skip
            after = kept(folder, tuned, config, options)
            about = {"learning_rate": rate, "steps": steps, "seed": seed}
            rows.append(about | {"after": after})
    return [{"before": before} | row for row in rows]


def tuned(config, options) -> float:
    """Held-out accuracy after a fine-tuning."""
    sft.main(options)
    return accuracy(config, options.run_dir)


def training(config) -> list[dict]:
    """[step, held-out accuracy] of each variant and seed."""
    rows = []
    for number, (name, changes) in enumerate(VARIANTS.items()):
        for seed in config.seeds:
            folder = f"{config.run_dir}/training-{number}-{config.num_steps}-{seed}"
            options = flags.load_file("configs/quickstart.py")
            options.update_from_flattened_dict({
                "num_steps": config.num_steps, "seed": seed, "run_dir": folder,
                "optimizer.schedule": "constant", "eval_every": 5, "loggers": (),
                "checkpoint_every": 0, **changes,
            })  # fmt: skip
            curve = kept(folder, trained, options)
            rows.append({"variant": name, "seed": seed, "curve": curve})
    return rows


def trained(options) -> list:
    """The curve of a run."""
    train.main(options)
    rows = read_metrics(options.run_dir)
    return [[r["step"], r["eval_accuracy"]] for r in rows if "eval_accuracy" in r]


def accuracy(config, model: str) -> float:
    """Greedy accuracy on the quickstart's held-out problems."""
    options = flags.load_file("configs/quickstart.py")
    options.model, options.run_dir = model, config.run_dir
    return tested(options)["eval_accuracy"]


def kept(folder: str, make: Callable, *args):
    """What `make(*args)` returns, or returned in an earlier run."""
    path = Path(f"{folder}.json")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(*args)))
    return json.loads(path.read_text())


PARTS = {"supervised": supervised, "training": training}

if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/early_dip.py")

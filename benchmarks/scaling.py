"""How an update's time and memory grow with samples, lengths and vocabulary.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --config.layers=0 --config.samples="(8,)"

One group of completions, all of one length, is learned from in two forms: packed behind
one prompt, as in training, and as separate rows that each repeat it. One quantity is
changed at a time. Writes benchmarks/results/scaling.{json,png}.
"""

import dataclasses
import time
from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import record
from sides import timing, workload

from ovd_jax.cli import flags
from ovd_jax.learning.learner import cut
from ovd_jax.models.known import KNOWN
from ovd_jax.reporting.progress import results_table

LABELS = {
    "samples": "samples a prompt",
    "prompt": "prompt tokens",
    "completion": "completion tokens",
    "vocab": "vocabulary",
}


def main(config, output):
    """Measures every point, then writes table, plot and JSON."""
    started = time.time()
    points = {
        axis: [
            {"value": value} | measure(config, dict(config.base) | {axis: value})
            for value in config[axis]
        ]
        for axis in LABELS
    }
    for axis, rows in points.items():
        columns = list(rows[0])
        results_table(
            f"By {LABELS[axis]}", columns, [[r[c] for c in columns] for r in rows]
        )
    plot(points, output.path(".png"))
    result = {"model": config.model, "layers": config.layers, "points": points}
    output.write(result)
    flags.summary(**result, seconds=round(time.time() - started, 1))


def measure(config, point: dict) -> dict[str, float]:
    """Seconds and temporaries of an update in both forms."""
    shape = KNOWN[config.model]
    shape = dataclasses.replace(
        shape,
        vocab_size=point["vocab"],
        num_layers=config.layers or shape.num_layers,
    )
    lengths = [point["completion"]] * point["samples"]
    forms = {"packed": [lengths], "rows": [[length] for length in lengths]}
    result = {}
    for form, groups in forms.items():
        seconds, mib = update(config, shape, point, groups)
        result |= {f"{form}_s": seconds, f"{form}_mib": mib}
    return result


def update(config, shape, point: dict, groups) -> tuple[float, float]:
    """(median seconds, MiB of temporaries) of an update on `groups`."""
    batch, packed = workload.batch(
        point["prompt"], groups, vocab_size=shape.vocab_size,
        length_multiple=32, microbatch_tokens=config.microbatch_tokens,
    )  # fmt: skip
    learner = workload.learner(remat=config.remat, chunk=config.chunk)
    state = workload.create(shape)

    def step(_):
        nonlocal state
        state, _ = learner.learn(state, batch, microbatch=packed.microbatch, seed=0)
        jax.block_until_ready(state)

    seconds = timing.seconds(step, config.repeats)
    part = next(cut(batch, packed.microbatch))
    return seconds, workload.temporaries_mib(learner.stepper, state, part)


def plot(points: dict, path: Path) -> None:
    """Time above, memory below, a column for each quantity."""
    figure, axes = plt.subplots(2, len(points), figsize=(13, 6), sharex="col")
    for (axis, rows), column in zip(points.items(), axes.T, strict=True):
        values = [row["value"] for row in rows]
        for unit, ax in zip(("s", "mib"), column, strict=True):
            for form, color in (("packed", "#0b6fb8"), ("rows", "#d9730d")):
                heights = [row[f"{form}_{unit}"] for row in rows]
                ax.plot(values, heights, "o-", color=color, label=form)
            ax.set_xscale("log", base=2)
            ax.set_ylim(bottom=0)
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
        column[1].set_xlabel(LABELS[axis])
    axes[0, 0].set_ylabel("seconds an update")
    axes[1, 0].set_ylabel("temporaries, MiB")
    axes[0, 0].legend(frameon=False)
    figure.suptitle("An update packed behind one prompt, and as separate rows")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/scaling.py")

"""Runs side by side: each is trained and evaluated for each seed, then compared.

A cell of the grid is one run with one seed, in a directory of its own that is named by
what it is. Its programs are processes; what they finished is kept, so the same command
goes on where it was stopped, a training from its checkpoint.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ovd_jax import flags
from ovd_jax.bars import plot_bars
from ovd_jax.curves import plot_comparison
from ovd_jax.panels import STEP, smooth
from ovd_jax.progress import results_table
from ovd_jax.run_dir import read_metrics


@dataclasses.dataclass(frozen=True)
class Run:
    """One line of the comparison: a label and the knobs that it changes."""

    label: str
    overrides: tuple[str, ...]  # knob=value
    trained: bool = True  # False: the model that the others start from


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run with one seed."""

    run: Run
    seed: int
    folder: Path


def main(config):
    """Trains and evaluates what is missing, then writes table, plots and JSON."""
    started = time.time()
    runs = [parse_run(text, config.overrides) for text in config.runs]
    cells = [cell(config, run, seed) for run in runs for seed in config.seeds]
    if config.zero_shot:
        runs = [Run("before training", tuple(config.overrides), trained=False), *runs]
        cells = [cell(config, runs[0], config.seeds[0]), *cells]
    failed = []
    for index, each in enumerate(cells, 1):
        print(
            f"cell {index}/{len(cells)}: {each.run.label}, seed {each.seed}, in "
            f"{each.folder}",
            file=sys.stderr,
        )
        with locked(each.folder) as lock:
            if not work(config, each, lock):
                failed.append(each)
    done = [each for each in cells if each not in failed]
    rows = [
        row(run, threshold, [c for c in done if c.run == run])
        for run in runs
        for threshold in config.test_thresholds
    ]
    rows = [each for each in rows if each["seeds"]]
    show(config, rows)
    plot(config, rows, runs, done)
    result = {
        "rows": rows,
        "failed": [str(c.folder) for c in failed],
        "seconds": round(time.time() - started, 1),
    }
    path = Path(config.run_dir) / "comparison.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    flags.summary(**result, comparison=str(path))
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(cells)} cells failed; the ends of their logs say "
            "why, and the same command tries them again."
        )


def parse_run(text: str, shared: Sequence[str]) -> Run:
    """`label: knob=value knob=value`; without a label the knobs are it."""
    label, colon, knobs = text.rpartition(": ")
    overrides = (knobs if colon else text).split()
    wrong = [item for item in (*shared, *overrides) if not re.match(r"[\w.]+=", item)]
    if wrong:
        raise ValueError(
            f"The run {text!r} has {wrong[0]!r}; write 'label: knob=value knob=value'."
        )
    return Run(label or " ".join(overrides) or "base", (*shared, *overrides))


def cell(config, run: Run, seed: int) -> Cell:
    """The cell, in a folder that another config, or other knobs, do not share."""
    content = repr((config.base, run.overrides, run.trained)).encode()
    digest = hashlib.blake2b(content, digest_size=4).hexdigest()
    name = re.sub(r"\W+", "-", run.label).strip("-").lower()[:40]
    folder = Path(config.run_dir) / f"{name}-{digest}" / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return Cell(run, seed, folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds a folder for this program and for the processes that it starts: they live
    on where it is killed, and must not get company. Gives the lock's file descriptor.
    """
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another process works in {folder}, perhaps one that a killed "
                "comparison left behind; wait for it, or end it."
            ) from None
        yield file.fileno()


def work(config, each: Cell, lock: int) -> bool:
    """Trains and evaluates one cell; whether all of it is there now."""
    model = each.folder
    if each.run.trained:
        changes = [*each.run.overrides, f"seed={each.seed}", f"run_dir={each.folder}"]
        if not step(config, each, "train", "train", config.base, changes, lock):
            return False
    else:
        chosen = [c for c in each.run.overrides if c.startswith("model=")]
        model = chosen[-1][6:] if chosen else flags.load_file(config.base).model
    for threshold in config.test_thresholds:
        name = evaluation(threshold)
        changes = [*config.eval_overrides, f"model={model}"]
        changes += [f"run_dir={each.folder / name}", f"test_threshold={threshold}"]
        if not step(config, each, name, "evaluate", config.eval_base, changes, lock):
            return False
    return True


def evaluation(threshold: float) -> str:
    """The name of an evaluation with a testing threshold, in a cell's folder."""
    return f"eval-{threshold:g}"


def step(config, each: Cell, name, program, base, changes, lock: int) -> bool:
    """Runs one program of a cell unless it is done; whether it is."""
    command = [str(flags.ROOT / "launch" / f"{program}.py"), f"--config={base}"]
    command += [f"--config.{change}" for change in changes]
    done = each.folder / f"{name}.done.json"
    if done.is_file() and json.loads(done.read_text())["command"] == command:
        return True
    log = each.folder / f"{name}.log"
    try:
        with open(log, "ab") as file:
            said = subprocess.run(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file,
                pass_fds=[lock], timeout=config.timeout_s, check=True,
            ).stdout  # fmt: skip
            file.write(said)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        end = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        print(f"{log}: {' | '.join(end)} ({error})", file=sys.stderr)
        return False
    summary = json.loads(said.splitlines()[-1])
    copy = done.with_suffix(".tmp")
    copy.write_text(json.dumps({"command": command, "summary": summary}) + "\n")
    copy.rename(done)
    return True


def row(run: Run, threshold: float, cells: Sequence[Cell]) -> dict:
    """What the seeds of a run gave on each set, at one testing threshold."""
    found = [json.loads(results_of(c, threshold).read_text()) for c in cells]
    scores: dict[str, list[float]] = {}
    for one in found:
        for name, of in one["sets"].items():
            scores.setdefault(name, []).append(of["measures"][f"avg@{of['samples']}"])
        scores.setdefault("mean", []).append(one["average"])
    return {
        "run": run.label,
        "test_threshold": threshold,
        "seeds": [each.seed for each in cells],
        "sets": {name: spread(values) for name, values in scores.items()},
    }


def results_of(each: Cell, threshold: float) -> Path:
    """Where an evaluation wrote its numbers."""
    return each.folder / evaluation(threshold) / "results.json"


def spread(values: Sequence[dict]) -> dict:
    """Mean over seeds, and how far it may be off: their standard deviation, or with one
    seed half of the bootstrap's interval."""
    by_seed = [value["value"] for value in values]
    error = (values[0]["high"] - values[0]["low"]) / 2
    if len(by_seed) > 1:
        error = statistics.stdev(by_seed)
    return {"mean": statistics.fmean(by_seed), "error": error, "by_seed": by_seed}


def show(config, rows: Sequence[dict]) -> None:
    """The table: a line for each run and testing threshold, a column for each set."""
    sets = list(dict.fromkeys(name for each in rows for name in each["sets"]))
    several = len(config.test_thresholds) > 1
    results_table(
        f"Accuracy in %, seeds {', '.join(map(str, config.seeds))}",
        ["run", *["tested at"] * several, "seeds", *sets],
        [
            [each["run"], *[each["test_threshold"]] * several, len(each["seeds"])]
            + [shown(each["sets"].get(name)) for name in sets]
            for each in rows
        ],
    )


def shown(value: dict | None) -> str:
    """`45.5 ± 1.2`."""
    return f"{100 * value['mean']:.1f} ± {100 * value['error']:.1f}" if value else ""


def plot(config, rows: Sequence[dict], runs: Sequence[Run], done: Sequence[Cell]):
    """Bars by set (as Figure 4), reward and accuracy over the steps (as 5 and 6)."""
    folder = Path(config.run_dir)
    if rows:
        plot_bars(
            {label(each, config): each["sets"] for each in rows},
            folder / "sets.png",
            title="Accuracy by set",
            ylabel="accuracy",
        )
    for metric, title in {
        "reward_before": "Reward of the student's own trajectories",
        "eval_accuracy": "Held-out accuracy",
    }.items():
        series = {
            run.label: [curve(c, metric) for c in done if c.run == run]
            for run in runs
            if run.trained
        }
        series = {name: list(filter(None, of)) for name, of in series.items()}
        plot_comparison(
            {STEP: {name: of for name, of in series.items() if of}},
            folder / f"{metric}.png",
            title=title,
            ylabel=metric.replace("_", " "),
        )


def label(each: dict, config) -> str:
    """Of a row, with the testing threshold where there are several."""
    tested = f", tested at {each['test_threshold']}"
    return each["run"] + tested * (len(config.test_thresholds) > 1)


def curve(each: Cell, metric: str) -> list[tuple[int, float]]:
    """(step, rolling mean) of one training; as it is where it was measured rarely."""
    rows = [r for r in read_metrics(each.folder) if r.get(metric) is not None]
    values = np.array([r[metric] for r in rows])
    if metric != "eval_accuracy":
        values = smooth(values)
    return list(zip([r["step"] for r in rows], values.tolist(), strict=True))

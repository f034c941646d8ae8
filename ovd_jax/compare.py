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

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT, as_path
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links, write_text
from ovd_jax.reporting.bars import plot_bars
from ovd_jax.reporting.curves import plot_comparison
from ovd_jax.reporting.panels import STEP, smooth
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.text import one_line
from ovd_jax.wiring.combinations import CHECKS

DEFAULT = "default"  # has the knobs of both programs


@dataclasses.dataclass(frozen=True)
class Run:
    """What is compared: a label, and the knobs that it changes."""

    label: str
    overrides: tuple[str, ...]  # knob=value
    base: str  # the config that is trained; empty: the starting model as it is
    eval_base: str  # the config by which it is evaluated


@dataclasses.dataclass(frozen=True)
class Test:
    """One way to evaluate a run: a label, and the knobs that it changes."""

    label: str
    overrides: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run with one seed."""

    run: Run
    seed: int
    folder: Path


def main(config):
    """Trains and evaluates what is missing, then writes table, plots and JSON."""
    started = time.time()
    runs = [parse_run(text, config) for text in config.runs]
    tests = [Test(*parse(text)) for text in config.tests]
    check(config, runs, tests)
    refuse_links(config.run_dir)
    cells = [
        cell(config, run, seed)
        for run in runs
        for seed in (config.seeds if run.base else config.seeds[:1])
    ]
    failed = []
    for index, each in enumerate(cells, 1):
        print(
            f"cell {index}/{len(cells)}: {each.run.label}, seed {each.seed}, in "
            f"{each.folder}",
            file=sys.stderr,
        )
        with locked(each.folder) as lock:
            if not work(config, each, tests, lock):
                failed.append(each)
    done = [each for each in cells if each not in failed]
    rows = [
        row(run, test, [c for c in done if c.run == run])
        for run in runs
        for test in tests
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
    write_text(path, json.dumps(result, indent=1) + "\n")
    flags.summary(**result, comparison=str(path))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed; the ends of their logs say "
            "why, and the same command tries them again."
        )


def parse_run(text: str, config) -> Run:
    """`label: knob=value ...`, where `base` and `eval_base` are knobs too: of this run,
    in place of the comparison's own."""
    label, overrides = parse(text)
    bases = {"base": config.base, "eval_base": config.eval_base}
    knobs = []
    for override in (*config.overrides, *overrides):
        name, _, value = override.partition("=")
        if name in bases:
            bases[name] = value
        else:
            knobs.append(override)
    return Run(label, tuple(knobs), **bases)


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """(label, knobs) of `label: knob=value ...`; without a label the knobs are it."""
    label, colon, knobs = text.rpartition(": ")
    overrides = (knobs if colon else text).split()
    wrong = [item for item in overrides if not re.match(r"[\w.]+=", item)]
    if wrong:
        raise UserError(
            f"{text!r} has {wrong[0]!r}; write 'label: knob=value knob=value'."
        )
    return label or " ".join(overrides) or "base", tuple(overrides)


def check(config, runs: Sequence[Run], tests: Sequence[Test]) -> None:
    """Refuses a knob or a file that some program would refuse days later."""
    for name in ("runs", "tests", "seeds"):
        if not config[name]:
            raise UserError(f"{name} is empty, so that nothing is compared; name some.")
    for name, each in {
        "runs": [run.label for run in runs],
        "tests": [test.label for test in tests],
        "seeds": list(config.seeds),
    }.items():
        if twice := [item for item in each if each.count(item) > 1]:
            raise UserError(f"{name} has {twice[0]!r} twice; each counts once.")
    for run in runs:
        if own := [x for x in run.overrides if x.startswith(("seed=", "run_dir="))]:
            raise UserError(
                f"The run {run.label!r} sets {own[0]}, which each cell has of its own; "
                "take it out, and set the comparison's seeds and run_dir."
            )
        commands = [command("train", run.base, run.overrides)] if run.base else []
        if not run.base and not starting_model(config, run):
            raise UserError(
                f"The run {run.label!r} trains nothing and names no model; write "
                "model=... among its knobs, or set config.base."
            )
        commands += [
            command("evaluate", run.eval_base, [*config.eval_overrides, *t.overrides])
            for t in tests
        ]
        for program, *arguments in commands:
            argv = [program, *arguments]
            try:
                asked, _ = flags.parse(argv, doc=None, default=DEFAULT)
                CHECKS[Path(program).stem](asked)
            except (flags.UsageError, UserError) as error:
                raise UserError(f"The run {run.label!r}: {error}") from None


def command(program: str, base: str, changes: Sequence[str]) -> list[str]:
    """A program with a config and changes of its knobs."""
    path = ROOT / "launch" / f"{program}.py"
    return [str(path), f"--config={base}", *(f"--config.{c}" for c in changes)]


def cell(config, run: Run, seed: int) -> Cell:
    """The cell, in a folder that another config, or other knobs, do not share."""
    base = as_path(run.base or config.base)  # a name and its path are one config
    content = (base, run.overrides, bool(run.base))
    folder = Path(config.run_dir) / named(run.label, content) / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return Cell(run, seed, folder)


def named(label: str, content) -> str:
    """A name for a folder: readable, and of `content` alone."""
    digest = hashlib.blake2b(repr(content).encode(), digest_size=4).hexdigest()
    words = re.sub(r"\W+", "-", label).strip("-").lower()[:40]
    return f"{words}-{digest}"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds a folder for this program and for the processes that it starts: they live
    on where it is killed, and must not get company. Gives the lock's file descriptor.
    """
    refuse_links(folder)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process works in {folder}, perhaps one that a killed "
                "comparison left behind; wait for it, or end it."
            ) from None
        yield file.fileno()


def work(config, each: Cell, tests: Sequence[Test], lock: int) -> bool:
    """Trains and evaluates one cell; whether all of it is there now."""
    model, run = each.folder, each.run
    if run.base:
        changes = [*run.overrides, f"seed={each.seed}", f"run_dir={each.folder}"]
        if not step(config, each, "train", "train", run.base, changes, lock):
            return False
    else:
        model = starting_model(config, run)
    for test in tests:
        name = evaluation(test)
        changes = [*config.eval_overrides, *test.overrides]
        changes += [f"model={model}", f"run_dir={each.folder / name}"]
        if not step(config, each, name, "evaluate", run.eval_base, changes, lock):
            return False
    return True


def starting_model(config, run: Run) -> str:
    """The model of a run that is not trained; empty if none is named."""
    chosen = [c for c in run.overrides if c.startswith("model=")]
    if chosen:
        return chosen[-1].removeprefix("model=")
    return flags.load_file(config.base).model if config.base else ""


def evaluation(test: Test) -> str:
    """The name of an evaluation in a cell's folder."""
    return f"eval-{named(test.label, test.overrides)}"


def step(config, each: Cell, name, program, base, changes, lock: int) -> bool:
    """Runs one program of a cell unless it is done; whether it is."""
    asked = command(program, base, changes)
    done = each.folder / f"{name}.done.json"
    if done.is_file() and json.loads(done.read_text())["command"] == asked:
        return True
    log = each.folder / f"{name}.log"
    try:
        with open(log, "ab") as file:
            said = subprocess.run(
                [sys.executable, *asked],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file,
                pass_fds=[lock], timeout=config.timeout_s, check=True,
            ).stdout  # fmt: skip
            file.write(said)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        end = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        said = one_line(f"{' | '.join(end)} ({error})")
        print(f"{log}: {said}", file=sys.stderr)
        return False
    summary = json.loads(said.splitlines()[-1])
    write_text(done, json.dumps({"command": asked, "summary": summary}) + "\n")
    return True


def row(run: Run, test: Test, cells: Sequence[Cell]) -> dict:
    """What the seeds of a run gave on each set, in one test."""
    found = [json.loads(results_of(c, test).read_text()) for c in cells]
    scores: dict[str, list[float]] = {}
    for one in found:
        for name, of in one["sets"].items():
            scores.setdefault(name, []).append(of["measures"][f"avg@{of['samples']}"])
        if len(one["sets"]) > 1:
            scores.setdefault("mean", []).append(one["average"])
    return {
        "run": run.label,
        "test": test.label,
        "seeds": [each.seed for each in cells],
        "sets": {name: spread(values) for name, values in scores.items()},
    }


def results_of(each: Cell, test: Test) -> Path:
    """Where an evaluation wrote its numbers."""
    return each.folder / evaluation(test) / "results.json"


def spread(values: Sequence[dict]) -> dict:
    """Mean over seeds, and how far it may be off: their standard deviation, or with one
    seed half of the bootstrap's interval."""
    by_seed = [value["value"] for value in values]
    error = (values[0]["high"] - values[0]["low"]) / 2
    if len(by_seed) > 1:
        error = statistics.stdev(by_seed)
    return {"mean": statistics.fmean(by_seed), "error": error, "by_seed": by_seed}


def show(config, rows: Sequence[dict]) -> None:
    """The table: a line for each run and test, a column for each set."""
    sets = list(dict.fromkeys(name for each in rows for name in each["sets"]))
    several = len(config.tests) > 1
    results_table(
        f"Accuracy in %, seeds {', '.join(map(str, config.seeds))}",
        ["run", *["test"] * several, "seeds", *sets],
        [
            [each["run"], *[each["test"]] * several, len(each["seeds"])]
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
            if run.base
        }
        series = {name: list(filter(None, of)) for name, of in series.items()}
        plot_comparison(
            {STEP: {name: of for name, of in series.items() if of}},
            folder / f"{metric}.png",
            title=title,
            ylabel=metric.replace("_", " "),
        )


def label(each: dict, config) -> str:
    """Of a row, with its test where there are several."""
    return each["run"] + f", {each['test']}" * (len(config.tests) > 1)


def curve(each: Cell, metric: str) -> list[tuple[int, float]]:
    """(step, rolling mean) of one training; as it is where it was measured rarely."""
    rows = [r for r in read_metrics(each.folder) if r.get(metric) is not None]
    values = np.array([r[metric] for r in rows])
    if metric != "eval_accuracy":
        values = smooth(values)
    return list(zip([r["step"] for r in rows], values.tolist(), strict=True))

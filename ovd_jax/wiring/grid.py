"""The grid of a comparison: runs, tests and cells, made of its config."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT, as_path
from ovd_jax.errors import UserError
from ovd_jax.wiring.combinations import CHECKS

DEFAULT = "default"  # has the knobs of both programs


@dataclasses.dataclass(frozen=True)
class Run:
    """A run to compare: its label and the knobs that it changes."""

    label: str
    overrides: tuple[str, ...]  # knob=value
    base: str  # the config it is trained with; empty: the starting model, untrained
    eval_base: str  # the config it is evaluated with


@dataclasses.dataclass(frozen=True)
class Test:
    """A way to evaluate a run: a label and the knobs that it changes."""

    label: str
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of this evaluation in a cell's folder."""
        return f"eval-{folder_name(self.label, self.overrides)}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run with one seed, and its folder."""

    run: Run
    seed: int
    folder: Path


@dataclasses.dataclass(frozen=True)
class Program:
    """A training or an evaluation of a cell, whose files are called `name`."""

    name: str
    command: list[str]  # script and arguments


def parse_grid(config: ConfigDict) -> tuple[list[Run], list[Test]]:
    """The runs and tests of the config. Raises UserError for a knob or file that some
    program would refuse days later."""
    runs = [parse_run(text, config) for text in config.runs]
    tests = [Test(*parse(text)) for text in config.tests]
    check(config, runs, tests)
    return runs, tests


def make_cells(config: ConfigDict, runs: Sequence[Run]) -> list[Cell]:
    """A cell for each run and seed; an untrained run has one."""
    return [
        make_cell(config, run, seed)
        for run in runs
        for seed in (config.seeds if run.base else config.seeds[:1])
    ]


def make_cell(config: ConfigDict, run: Run, seed: int) -> Cell:
    """The cell of a run and a seed, in a folder that no other config or knobs share."""
    base = as_path(run.base or config.base)  # a name and its path are one config
    content = (base, run.overrides, bool(run.base))
    folder = Path(config.run_dir) / folder_name(run.label, content) / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return Cell(run, seed, folder)


def folder_name(label: str, content: object) -> str:
    """A readable name for a folder, with a digest of `content`."""
    digest = hashlib.blake2b(repr(content).encode(), digest_size=4).hexdigest()
    words = re.sub(r"\W+", "-", label).strip("-").lower()[:40]
    return f"{words}-{digest}"


def programs(
    config: ConfigDict, cell: Cell, tests: Sequence[Test]
) -> Iterator[Program]:
    """The programs of a cell in their order: its training, then every evaluation."""
    model, run = cell.folder, cell.run
    if run.base:
        changes = [*run.overrides, f"seed={cell.seed}", f"run_dir={cell.folder}"]
        yield Program("train", command("train", run.base, changes))
    else:
        model = starting_model(config, run)
    for test in tests:
        changes = [*config.eval_overrides, *test.overrides]
        changes += [f"model={model}", f"run_dir={cell.folder / test.name}"]
        yield Program(test.name, command("evaluate", run.eval_base, changes))


def command(program: str, base: str, changes: Sequence[str]) -> list[str]:
    """The script of a program, its config and the changes of its knobs."""
    path = ROOT / "launch" / f"{program}.py"
    return [str(path), f"--config={base}", *(f"--config.{c}" for c in changes)]


def starting_model(config: ConfigDict, run: Run) -> str:
    """The model of an untrained run; empty if none is named."""
    chosen = [c for c in run.overrides if c.startswith("model=")]
    if chosen:
        return chosen[-1].removeprefix("model=")
    return flags.load_file(config.base).model if config.base else ""


def parse_run(text: str, config: ConfigDict) -> Run:
    """The run of `label: knob=value ...`; `base` and `eval_base` may be among the
    knobs."""
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
    """(label, knobs) of `label: knob=value ...`; the label defaults to the knobs."""
    label, colon, knobs = text.rpartition(": ")
    overrides = (knobs if colon else text).split()
    wrong = [item for item in overrides if not re.match(r"[\w.]+=", item)]
    if wrong:
        raise UserError(
            f"{text!r} has {wrong[0]!r}; write 'label: knob=value knob=value'."
        )
    return label or " ".join(overrides) or "base", tuple(overrides)


def check(config: ConfigDict, runs: Sequence[Run], tests: Sequence[Test]) -> None:
    """Raises UserError for an empty grid, for repeated labels, and for commands that
    their programs would refuse."""
    check_labels(config, runs, tests)
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
        for argv in commands:
            check_command(run, argv)


def check_labels(
    config: ConfigDict, runs: Sequence[Run], tests: Sequence[Test]
) -> None:
    """Raises UserError if there are no runs, tests or seeds, or one comes twice."""
    for name, labels in {
        "runs": [run.label for run in runs],
        "tests": [test.label for test in tests],
        "seeds": list(config.seeds),
    }.items():
        if not labels:
            raise UserError(f"{name} is empty, so that nothing is compared; name some.")
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise UserError(f"{name} has {twice[0]!r} twice; each counts once.")


def check_command(run: Run, argv: Sequence[str]) -> None:
    """Raises UserError if the program would refuse its arguments."""
    try:
        asked, _ = flags.parse(list(argv), doc=None, default=DEFAULT)
        CHECKS[Path(argv[0]).stem](asked)
    except (flags.UsageError, UserError) as error:
        raise UserError(f"The run {run.label!r}: {error}") from None

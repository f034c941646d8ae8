"""Compares runs: each is trained and evaluated for each seed, then put in one table.

A cell of the grid is one run with one seed, in a directory named by its content. Its
programs are processes. Finished programs are not run again, so the same command resumes
a comparison, and a training resumes from its checkpoint.
"""

import contextlib
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links, write_text
from ovd_jax.reporting.comparison import plot_curves, plot_sets, print_table, spread
from ovd_jax.text import one_line
from ovd_jax.wiring.grid import (
    Cell,
    Program,
    Run,
    Test,
    make_cells,
    parse_grid,
    programs,
)


def main(config: ConfigDict) -> None:
    """Trains and evaluates the missing cells, then writes table, plots and JSON."""
    started = time.time()
    runs, tests = parse_grid(config)
    refuse_links(config.run_dir)
    cells = make_cells(config, runs)
    failed = [cell for cell in numbered(cells) if not finish(config, cell, tests)]
    done = [cell for cell in cells if cell not in failed]
    rows = [
        result_row(run, test, [cell for cell in done if cell.run == run])
        for run in runs
        for test in tests
    ]
    rows = [row for row in rows if row["seeds"]]
    report(config, rows, runs, done)
    result = {
        "rows": rows,
        "failed": [str(cell.folder) for cell in failed],
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


def numbered(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, each announced on stderr."""
    for index, cell in enumerate(cells, 1):
        print(
            f"cell {index}/{len(cells)}: {cell.run.label}, seed {cell.seed}, in "
            f"{cell.folder}",
            file=sys.stderr,
        )
        yield cell


def finish(config: ConfigDict, cell: Cell, tests: Sequence[Test]) -> bool:
    """Runs the programs of a cell that are not done yet; returns False if one
    fails."""
    with locked(cell.folder) as lock:
        return all(
            run(program, cell.folder, lock, timeout_s=config.timeout_s)
            for program in programs(config, cell, tests)
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds a folder for this program and its child processes, and yields the file
    descriptor of the lock.

    The children outlive this program if it is killed; another one must not run beside
    them.
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


def run(program: Program, folder: Path, lock: int, *, timeout_s: float) -> bool:
    """Runs a program of a cell unless it is done; returns False if it fails."""
    done = folder / f"{program.name}.done.json"
    if done.is_file() and json.loads(done.read_text())["command"] == program.command:
        return True
    log = folder / f"{program.name}.log"
    try:
        with open(log, "ab") as file:
            output = subprocess.run(
                [sys.executable, *program.command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file,
                pass_fds=[lock], timeout=timeout_s, check=True,
            ).stdout  # fmt: skip
            file.write(output)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        end = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        message = one_line(f"{' | '.join(end)} ({error})")
        print(f"{log}: {message}", file=sys.stderr)
        return False
    summary = json.loads(output.splitlines()[-1])
    write_text(
        done, json.dumps({"command": program.command, "summary": summary}) + "\n"
    )
    return True


def result_row(run: Run, test: Test, cells: Sequence[Cell]) -> dict:
    """The results of a run over its seeds, on each set of a test."""
    scores: dict[str, list[dict]] = {}
    for cell in cells:
        results = json.loads((cell.folder / test.name / "results.json").read_text())
        for name, result in results["sets"].items():
            value = result["measures"][f"avg@{result['samples']}"]
            scores.setdefault(name, []).append(value)
        if len(results["sets"]) > 1:
            scores.setdefault("mean", []).append(results["average"])
    return {
        "run": run.label,
        "test": test.label,
        "seeds": [cell.seed for cell in cells],
        "sets": {name: spread(values) for name, values in scores.items()},
    }


def report(
    config: ConfigDict, rows: Sequence[dict], runs: Sequence[Run], done: Sequence[Cell]
) -> None:
    """Prints the table, and plots bars by set (as Figure 4) and curves of reward and
    accuracy over the steps (as Figures 5 and 6)."""
    several_tests, folder = len(config.tests) > 1, Path(config.run_dir)
    print_table(rows, config.seeds, several_tests=several_tests)
    if rows:
        plot_sets(rows, folder, several_tests=several_tests)
    folders = {
        run.label: [cell.folder for cell in done if cell.run == run]
        for run in runs
        if run.base
    }
    plot_curves(folders, folder)

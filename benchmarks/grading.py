"""How many answers a second are judged, and what the worker processes take.

    python benchmarks/grading.py
    python benchmarks/grading.py --config.cases=rows.jsonl --config.rounds=5

The cases are those of the tests: (answer, gold, right or wrong) of eight kinds of data.
Printed are items a second settled by comparing alone, by algebra with one worker and
with all, and with answers among them that hang; the memory of the workers, and that
none is left. Writes benchmarks/results/grading.json.
"""

import json
import os
import time
from pathlib import Path

import record

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.reporting.progress import results_table
from ovd_jax.tasks.grading.equality import Rule, compare
from ovd_jax.tasks.grading.grader import Grader, NeedsAlgebra, refuse

HANGING = ("9^{9^{9^9}}", r"\binom{10^9}{5\cdot10^8}", "99999!")


def main(config, output):
    """Measures, prints a table, and writes the JSON."""
    lines = Path(config.cases).read_text("utf-8").splitlines()
    pairs = [tuple(json.loads(line)[:2]) for line in lines]
    easy = [pair for pair in pairs if is_easy(*pair)]
    hard = [pair for pair in pairs if pair not in set(easy)]
    hanging = [(answer, "2") for answer in HANGING]
    rows = [
        measure("comparing alone", easy, config, workers=1),
        measure("algebra, one worker", hard, config, workers=1),
        measure("algebra, all workers", hard, config, workers=config.workers),
        measure("all, as they come", pairs, config, workers=config.workers),
        measure("with 3 that hang", pairs + hanging, config, workers=config.workers),
    ]
    results_table(
        f"Grading, {os.cpu_count()} cores",
        ("what", "items", "items/s", "workers", "MiB a worker"),
        [
            (r["what"], r["items"], f"{r['items_per_s']:.0f}", r["workers"], r["mib"])
            for r in rows
        ],
    )
    left = children()
    result = {"cores": os.cpu_count(), "rows": rows, "processes_left": len(left)}
    output.write(result)
    flags.summary(**result)
    if left:
        raise UserError(f"The grading workers {sorted(left)} are still there.")


def is_easy(answer: str, gold: str) -> bool:
    """Whether comparing settles it."""
    try:
        compare(answer, gold, Rule(refuse))
    except NeedsAlgebra:
        return False
    return True


def measure(what: str, pairs, config, *, workers: int) -> dict:
    """Items a second over `rounds` passes, the workers warm."""
    with Grader(workers=workers) as grader:
        warm = range(4, 4 + 8 * len(grader.workers))
        grader.judge([(f"\\sqrt{{{n}}}", "2") for n in warm])
        started = time.perf_counter()
        for _ in range(config.rounds):
            grader.judge(pairs)
        seconds = time.perf_counter() - started
        alive = [
            w.process for w in grader.workers if w.process and w.process.poll() is None
        ]
        memory = [mib(process.pid) for process in alive]
    count = len(set(pairs)) * config.rounds
    return {
        "what": what,
        "items": count,
        "items_per_s": count / seconds,
        "seconds": seconds,
        "workers": workers or len(grader.workers),
        "mib": round(max(memory)) if memory else None,
    }


def mib(process: int) -> float:
    """Resident memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children() -> set[int]:
    """The processes that this one has started and that still are there."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for t in tasks for pid in (t / "children").read_text().split()}


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/grading.py")

"""Ours beside a peer: each side is a process of its own, run in turn on one machine.

A side is a program in `benchmarks/sides`; it takes its work as one argument of JSON and
prints what it measured as a last line of JSON. A peer's sides run in a virtual
environment of the peer's, made here when it is first needed.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import record

from ovd_jax.paths import cache_dir
from ovd_jax.reporting.progress import results_table

SIDES = Path(__file__).parent / "sides"
REQUIREMENTS = {
    "tunix": ["google-tunix==0.1.7"],
    "trl": ["torch==2.13.0", "trl==1.16.0", "psutil"],
}
_LIMIT_S = 3600  # of one side, installation included


def environment(peer: str) -> str:
    """The Python of the peer's virtual environment, complete with the peer."""
    folder = cache_dir() / "peers" / peer
    python = folder / "bin" / "python"
    ready = folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[peer])
    if not ready.is_file() or ready.read_text() != wanted:
        print(f"installing {wanted!r} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]]
        subprocess.run(install, check=True, timeout=_LIMIT_S)
        ready.write_text(wanted)
    return str(python)


def run_side(program: str, work: dict) -> dict:
    """What `sides/<program>.py` measured of `work`.

    The first word of its name says whose Python runs it: `ours` or a peer's. Raises
    RuntimeError with the end of its log where it fails.
    """
    whose = program.split("_")[0]
    python = sys.executable if whose not in REQUIREMENTS else environment(whose)
    done = subprocess.run(
        [python, str(SIDES / f"{program}.py"), json.dumps(work)],
        capture_output=True, text=True, timeout=_LIMIT_S,
        env=os.environ | {"PYTHONPATH": str(SIDES.parent.parent)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-4000:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    print(f"{program} {work['name']}: {measured}", file=sys.stderr, flush=True)
    return measured


def limits() -> dict:
    """What the machine can do: float32 matmuls in GFLOP/s, reading memory in GB/s."""
    return run_side("limits", {"name": ""})


def best(sides: list[dict], key: str) -> float | None:
    """The least `key` of any of a peer's settings; None where none measures it."""
    values = [side[key] for side in sides if side.get(key) is not None]
    return min(values, default=None)


def publish(output: record.Output, title: str, rows: list[dict], machine: dict) -> dict:
    """Writes the results, prints the table of this run, and returns the summary.

    Rows of works and peers that were not run this time stay in the file; each has
    date, commit and limits of its own run.
    """
    kept = output.read().get("rows", [])
    ran = {(row["work"], row["peer"]) for row in rows}
    own = record.stamp() | {"machine": machine | {"cores": os.cpu_count()}}
    rows = [row | own for row in rows]
    kept = [row for row in kept if (row["work"], row["peer"]) not in ran]
    output.write({"rows": sorted(rows + kept, key=lambda row: row["work"])})
    columns = [
        "work",
        "peer",
        "unit",
        "ours",
        "theirs",
        "ratio",
        "target",
        "limit_share",
    ]
    results_table(title, columns, [[row[column] for column in columns] for row in rows])
    return {"rows": rows}


def row(
    work: str,
    peer: str,
    unit: str,
    ours: float,
    theirs: float,
    target: str | None = None,
    limit: float | None = None,
) -> dict:
    """One comparison. `limit` is what `ours` would be at the machine's limit, in the
    same unit; `limit_share` is how near we are to it."""
    share = None
    if limit is not None:
        share = min(limit, ours) / max(limit, ours)
    return {
        "work": work, "peer": peer, "unit": unit, "ours": ours, "theirs": theirs,
        "ratio": ours / theirs, "target": target, "limit_share": share,
    }  # fmt: skip

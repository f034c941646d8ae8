"""The quickstart as a user runs it, once a seed: accuracy gained and wall time.

    python benchmarks/quickstart.py

Each run is a process of its own with an empty run directory, timed from start to end,
imports and compilation included. Writes benchmarks/results/quickstart.json.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
LIMIT_S = 1200


def main():
    """Runs every seed and prints the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run-dir", default="runs/quickstart_seeds")
    arguments = parser.parse_args()
    runs = [
        {"seed": seed} | run("quickstart", seed, f"{arguments.run_dir}/{seed}")
        for seed in arguments.seeds
    ]
    result = {
        "runs": runs,
        "smallest_gain": min(r["accuracy_after"] - r["accuracy_before"] for r in runs),
        "longest_seconds": max(r["wall_seconds"] for r in runs),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quickstart.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def run(config: str, seed: int, run_dir: str, *more: str) -> dict:
    """One run from nothing, with `more` flags: its own summary, and the wall time
    around it."""
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [
        sys.executable, str(ROOT / "launch/train.py"), f"--config=configs/{config}.py",
        f"--config.seed={seed}", f"--config.run_dir={run_dir}", *more,
    ]  # fmt: skip
    started = time.time()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S
    )
    seconds = round(time.time() - started, 1)
    print(done.stdout, flush=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    del summary["run_dir"]
    return {"wall_seconds": seconds} | summary


if __name__ == "__main__":
    main()

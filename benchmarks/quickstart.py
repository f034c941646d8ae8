"""The quickstart as a user runs it, once a seed: accuracy gained and wall time.

    python benchmarks/quickstart.py

Each run is a process of its own with an empty run directory, timed from start to end,
imports and compilation included. Writes benchmarks/results/quickstart.json.
"""

import json
import shutil
import subprocess
import sys
import time

import record

from ovd_jax import flags

LIMIT_S = 1200


def main(config, output):
    """Runs every seed and prints the summary."""
    runs = [
        {"seed": seed} | run("quickstart", seed, f"{config.run_dir}/{seed}")
        for seed in config.seeds
    ]
    result = {
        "runs": runs,
        "smallest_gain": min(r["accuracy_after"] - r["accuracy_before"] for r in runs),
        "longest_seconds": max(r["wall_seconds"] for r in runs),
    }
    output.write(result)
    flags.summary(**result)


def run(config: str, seed: int, run_dir: str, *more: str) -> dict:
    """One run from nothing, with `more` flags: its own summary, and the wall time
    around it."""
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [
        sys.executable, str(flags.ROOT / "launch/train.py"),
        f"--config=configs/{config}.py",
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
    record.run(main, doc=__doc__, default="benchmarks/configs/quickstart.py")

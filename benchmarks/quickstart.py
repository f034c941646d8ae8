"""The quickstart as a user runs it, once a seed: accuracy gained and wall time.

    python benchmarks/quickstart.py

Each run is a process of its own with an empty run directory, timed from start to end,
imports and compilation included; held-out accuracy along the run is kept too. The part
`problems` counts how many of the held-out problems are different ones. Writes
benchmarks/results/quickstart.json.
"""

import json
import shutil
import subprocess
import sys
import time

import record

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.wiring.task import make_task

LIMIT_S = 1200


def main(config, output):
    """Measures the parts, and keeps those of earlier runs that were not asked for."""
    results = {part: PARTS[part](config) for part in config.parts}
    output.write_parts(results)
    flags.summary(**results)


def problems(config) -> dict:
    """How many problems are held out, and how many different ones they are."""
    options = flags.load_file("configs/quickstart.py")
    questions = [x.question for x in make_task(options).held_out(options.eval_problems)]
    return {"held_out": len(questions), "distinct": len(set(questions))}


def runs(config) -> list[dict]:
    """Every seed."""
    return [
        {"seed": seed} | run("quickstart", seed, f"{config.run_dir}/{seed}")
        for seed in config.seeds
    ]


def run(config: str, seed: int, run_dir: str, *more: str) -> dict:
    """One run from nothing, with `more` flags: its own summary, the wall time around
    it, and [step, held-out accuracy] wherever that was measured."""
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [
        sys.executable, str(ROOT / "launch/train.py"),
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
    rows = [row for row in read_metrics(run_dir) if "eval_accuracy" in row]
    curve = [[row["step"], row["eval_accuracy"]] for row in rows]
    return {"wall_seconds": seconds} | summary | {"curve": curve}


PARTS = {"problems": problems, "runs": runs}

if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/quickstart.py")

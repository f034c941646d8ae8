"""The tables of launch/compare.py that are made on this machine.

    python benchmarks/comparisons.py
    python benchmarks/comparisons.py \\
        --config.comparisons="('compare_smollm2:problems.jsonl',)"

What such a comparison has trained and evaluated before is not done again; others that
were made before stay. Writes benchmarks/results/comparisons.json.
"""

import json
import time
from pathlib import Path

import record

from ovd_jax import compare
from ovd_jax.cli import flags


def main(config, output):
    """Makes each comparison, and writes all."""
    started = time.time()
    results = {}
    for each in config.comparisons:
        name, *text = each.split(":", 1)
        options = flags.load_file(":".join([f"configs/{name}.py", *text]))
        compare.main(options)
        found = json.loads(Path(options.run_dir, "comparison.json").read_text())
        results[name] = {"rows": found["rows"]}
        output.write_parts(results)
    flags.summary(**results, seconds=round(time.time() - started, 1))


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/comparisons.py")

"""Does a long run stay within its memory, and does it stop compiling?

    python benchmarks/steady_state.py

Trains the quickstart for 200 steps and compares the resident set and the number of
compiled programs after step 20 with those at the end. Writes
benchmarks/results/steady_state.json.
"""

import statistics

import record

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.reporting.run_dir import read_metrics

WARM_UP = 20  # steps after which nothing may grow
WINDOW = 20  # steps whose median is taken at either end


def main(config, output):
    """Trains, then compares the two ends of the run."""
    train.main(config)
    rows = [row for row in read_metrics(config.run_dir) if "rss_mib" in row]
    early = rows[WARM_UP : WARM_UP + WINDOW]
    late = rows[-WINDOW:]
    result = {
        "steps": len(rows),
        "rss_mib_early": median(early, "rss_mib"),
        "rss_mib_late": median(late, "rss_mib"),
        "rss_mib_peak_after_warm_up": max(r["rss_mib"] for r in rows[WARM_UP:]),
        "compiles_at_warm_up": rows[WARM_UP]["compiles"],
        "compiles_at_end": rows[-1]["compiles"],
        "seconds_a_step_early": step_seconds(early),
        "seconds_a_step_late": step_seconds(late),
    }
    result["rss_growth_mib"] = result["rss_mib_late"] - result["rss_mib_early"]
    output.write(result)
    flags.summary(**result)


def median(rows, name: str) -> float:
    """The median of a metric."""
    return statistics.median(row[name] for row in rows)


def step_seconds(rows) -> float:
    """Median seconds of collecting and updating."""
    return statistics.median(r["seconds_collect"] + r["seconds_update"] for r in rows)


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/steady_state.py")

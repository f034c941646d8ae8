"""Writes docs/results.md, every number of which is in a JSON of benchmarks/results.

    python benchmarks/results_page.py

A test holds that the page is what this program makes of the JSONs.
"""

from pathlib import Path

import record
from results_costs import COSTS
from results_learning import LEARNING
from results_running import RUNNING
from results_text import lines_of

from ovd_jax.cli.config_files import ROOT

PAGE = ROOT / "docs/results.md"
HEAD = """# Results

Every number here is read from a JSON in `benchmarks/results`, by
`python benchmarks/results_page.py`, and so is what speaks against us. Unless a section
says otherwise the machine had 2 CPU cores and no accelerator. Results that were made
before benchmarks recorded their machine and versions say so, and have the commit that
added them. A `+` behind a commit means that files were changed in it.

A benchmark replaces its JSON when it is run with its default settings, or with
`--config.publish=True`; with other settings it writes to `runs/benchmarks`.
"""


def main() -> None:
    """Replaces the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE}")


def page(folder: Path = record.PUBLISHED) -> str:
    """The whole page; a benchmark without results in `folder` has no section."""
    parts = [HEAD]
    for name, section in (LEARNING | COSTS | RUNNING).items():
        if result := record.read_json(folder / f"{name}.json"):
            parts.append("\n".join(lines_of(name, section, result)) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()

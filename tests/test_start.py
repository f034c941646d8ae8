"""`--help` answers at once: it waits for no large library."""

import subprocess
import sys

import pytest

from ovd_jax.cli.config_files import ROOT

SLOW = ("jax", "flax", "transformers", "matplotlib", "openai", "datasets", "torch")
PROGRAM = f"""
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
print(*(name for name in {SLOW} if name in sys.modules), file=sys.stderr)
"""
SCRIPTS = sorted(path for path in (ROOT / "launch").glob("*.py"))


@pytest.mark.parametrize(
    "script", [x for x in SCRIPTS if x.stem != "serve_teacher"], ids=lambda x: x.stem
)
def test_help_imports_no_large_library(script):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(script)], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    assert "usage:" in done.stdout

"""`--help` answers at once: it waits for no large library."""

import os
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
SCRIPTS = sorted((ROOT / "launch").glob("[a-z]*.py"))


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


NO_TORCH = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: (
    None if name == "torch" else find(name, *more)
)
"""


@pytest.mark.slow
def test_without_torch_a_program_says_nothing_of_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    done = subprocess.run(
        [
            sys.executable, "launch/evaluate.py", "--config.model=quickstart",
            "--config.eval_problems=4", "--config.eval_cache=none",
            f"--config.run_dir={tmp_path}/run",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stderr.lower()

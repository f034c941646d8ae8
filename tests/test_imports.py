"""Host code never imports jax (style guide, section 1)."""

import json
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ovd_jax"
HOST = (
    "client", "tasks", "teacher", "search", "rollout", "conversation", "evaluation",
)  # fmt: skip
GROUND = (
    "errors", "files", "jsonl", "own_code", "paths", "seeds", "shapes", "template",
    "text", "thoughts",
)  # fmt: skip
BORDER = "ovd_jax.rollout.pack"  # the one host module that makes device batches
PROGRAM = """
import importlib, json, sys
with_jax = []
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    if "jax" in sys.modules:
        with_jax.append(name)
print(json.dumps(with_jax))
"""


def host_modules() -> list[str]:
    files = [path for room in HOST for path in sorted((PACKAGE / room).rglob("*.py"))]
    files += [PACKAGE / f"{name}.py" for name in GROUND]
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in files
    ]
    return [name.removesuffix(".__init__") for name in names if name != BORDER]


def imports_jax(names: list[str]) -> list[str]:
    """Those of `names`, imported in this order, after which jax was there."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(names)]
    done = subprocess.run(
        command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_host_modules_do_not_import_jax():
    names = host_modules()
    assert {"ovd_jax.client.transport", "ovd_jax.tasks.math", "ovd_jax.seeds"} <= set(
        names
    )
    found = imports_jax([*names, BORDER])
    assert found[-1:] == [BORDER]  # else this test could not fail
    assert found == [BORDER], f"{found[0]} imports jax; host code must not."

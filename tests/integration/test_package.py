"""What `pip install .` leaves behind works in any folder, without the repository."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import ovd_jax

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "problems_per_step=4", "minibatches=1", "epochs=1", "eval_problems=4",
    "loggers=()",
)  # fmt: skip
WITHOUT_PYTHON = ("configs", "launch", "ovd_jax")  # have files that are no modules


def programs() -> list[str]:
    """Names in PROGRAMS of setup.py."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    return next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PROGRAMS"
    )


def test_every_launch_program_is_a_console_command_and_the_other_way_round():
    files = (path.stem for path in (ROOT / "launch").glob("[a-z]*.py"))
    assert sorted(programs()) == sorted(files)
    for name in programs():
        tree = ast.parse((ROOT / "launch" / f"{name}.py").read_text())
        functions = [x.name for x in tree.body if isinstance(x, ast.FunctionDef)]
        assert "run" in functions, name


def tracked() -> list[str]:
    """Files of the repository that git knows."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in done.stdout.split("\n") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: a `build` folder would keep modules that moved."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        if name.startswith((*WITHOUT_PYTHON, "setup.py", "pyproject", "README", "LIC")):
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
            "--no-build-isolation", "--wheel-dir", folder, folder / "source",
        ],
        check=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_console_commands_run_in_an_editable_install(tmp_path):
    command = Path(sys.executable).parent / "ovd-train"
    if not command.is_file():
        pytest.skip("the package is not installed in this environment")
    done = call(command.parent, "ovd-train", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: ovd-train" in done.stdout


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of the console commands in a new environment, which sees the libraries
    of this one behind its own."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", folder / "bin" / "python",
            "install", "--quiet", "--no-deps", "--no-index", wheel,
        ],
        check=True,
    )  # fmt: skip
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "bin"


def call(installed: Path, program: str, *arguments, cwd: Path):
    """Runs a console command as a user would, in the folder `cwd`."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [installed / program, *arguments], cwd=cwd, capture_output=True, text=True,
        env=environment | {"XDG_CACHE_HOME": str(installed.parent)}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_wheel_has_all_files_and_takes_one_name_at_the_top(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = {f"ovd_jax/{name}" for name in tracked() if name.startswith("configs/")}
    inside |= {f"ovd_jax/{name}" for name in tracked() if name.startswith("launch/")}
    inside |= {name for name in tracked() if name.startswith("ovd_jax/")}
    info = f"ovd_jax-{ovd_jax.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ovd_jax", info}
    assert {name for name in names if name.startswith("ovd_jax/")} == inside
    assert f"{info}/licenses/LICENSE" in names
    assert "ovd_jax/py.typed" in inside


@pytest.mark.slow
def test_every_console_command_answers_help_in_an_empty_folder(installed, tmp_path):
    for name in programs():
        program = f"ovd-{name.replace('_', '-')}"
        done = call(installed, program, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert program in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_installed_package_trains_in_another_folder(installed, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.py").write_text("a user's own, of another library")
    (tmp_path / "mine.py").write_text(
        "from configs import quickstart\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    config.run_dir = 'mine'\n"
        "    return config\n"
    )
    for config, run_dir, steps in [
        ("quickstart", "runs/quickstart", 2), ("mine.py", "mine", 1),
    ]:  # fmt: skip
        knobs = [f"--config.{knob}" for knob in (*SMALL, f"num_steps={steps}")]
        done = call(installed, "ovd-train", f"--config={config}", *knobs, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["run_dir"] == run_dir
        assert (tmp_path / run_dir / "export" / "config.json").is_file()


@pytest.mark.slow
def test_the_installed_package_compares_runs(installed, tmp_path):
    knobs = (
        "run_dir=compared", "seeds=(0,)", "runs=('a: base= model=quickstart',)",
        "eval_overrides=('eval_problems=4',)",
    )  # fmt: skip
    done = call(
        installed, "ovd-compare", *(f"--config.{knob}" for knob in knobs), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["run"] for row in rows] == ["a"]

"""A wrong command line is answered in one line that says what was probably meant."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from ovd_jax.cli import flags

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

def get_config(size="small"):
    config = ConfigDict()
    config.num_steps = 60 if size == "small" else 6000
    config.run_dir = "runs/x"
    config.remat = False
    config.thresholds = (0, 7)
    config.limit = placeholder(int)
    config.optimizer = ConfigDict({"learning_rate": 1e-3})
    config.teacher = ConfigDict({"url": "http://localhost"})
    return config
"""


@pytest.fixture
def program(tmp_path):
    """Runs a program on a small config and returns what its `main` was given."""
    path = tmp_path / "small.py"
    path.write_text(CONFIG)

    def start(*arguments):
        given = []
        argv = ["train.py", *arguments]
        flags.run(given.append, doc="Trains.", default=str(path), argv=argv)
        return given[0]

    return start


def refusal(program, capsys, *arguments):
    """The one line on stderr of a run that must end with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        program(*arguments)
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_knobs_of_every_type_can_be_set(program):
    config = program(
        "--config.num_steps=3",
        "--config.remat=true",
        "--config.thresholds=(0,5,7)",
        "--config.limit=4",
        "--config.optimizer.learning_rate=1",
        "--config.teacher.url=",
    )
    assert (config.num_steps, config.remat, config.limit) == (3, True, 4)
    assert config.thresholds == (0, 5, 7)
    assert config.optimizer.learning_rate == 1.0
    assert config.teacher.url == ""


def test_the_default_config_is_used_and_locked(program):
    config = program()
    assert (config.num_steps, config.limit) == (60, None)
    with pytest.raises(AttributeError):
        config.num_stepz = 3


def test_positional_arguments_reach_a_main_that_takes_them(tmp_path):
    (tmp_path / "small.py").write_text(CONFIG)
    given = []
    flags.run(
        lambda config, arguments: given.append((config.num_steps, arguments)),
        doc="",
        default=f"{tmp_path}/small.py",
        argv=["p", "a", f"--config={tmp_path}/small.py:large", "b"],
    )
    assert given == [(6000, ["a", "b"])]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--config.num_stepz=3", "Did you mean --config.num_steps (int, now 60)?"),
        ("--config.learning_rate=3", "mean --config.optimizer.learning_rate (float,"),
        ("--num_steps=3", "Did you mean --config.num_steps (int, now 60)?"),
        ("num_steps=3", "Did you mean --config.num_steps (int, now 60)?"),
        ("--config.num_steps=abc", "expected an int; it is 60 now"),
        ("--config.num_steps=1.5", "expected an int; it is 60 now"),
        ("--config.remat=maybe", "expected true or false; it is False now"),
        ("--config.thresholds=abc", "expected a tuple such as '(1, 2)'"),
        ("--config.optimizer=3", "as in --config.optimizer.learning_rate"),
        ("--config=configs/no_such.py", "no such file"),
    ],
)
def test_a_mistake_is_quoted_and_answered(program, capsys, argument, said):
    line = refusal(program, capsys, argument)
    assert line.startswith(f"error: {argument.split('=')[0]}")
    assert said in line


def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, program, capsys):
    bad = tmp_path / "bad.py"
    bad.write_text("def get_config():\n    return 1 / 0\n")
    line = refusal(program, capsys, f"--config={bad}")
    assert f"{bad}, line 2): ZeroDivisionError" in line


def test_help_lists_the_docstring_and_the_knobs(program, capsys):
    with pytest.raises(SystemExit) as exit_:
        program("--help", "--config.num_steps=5")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("Trains.")
    assert "--config.num_steps=5 " in text
    assert re.search(r"--config.optimizer.learning_rate=0.001 +float\n", text)


def test_only_a_users_mistake_is_shown_without_a_traceback(tmp_path):
    (tmp_path / "small.py").write_text(CONFIG)
    (tmp_path / "p.py").write_text(
        "import os\n"
        "from ovd_jax import errors\n"
        "from ovd_jax.cli import flags\n"
        "def main(config):\n"
        "    if 'FAULT' in os.environ:\n"
        "        raise ValueError('shapes differ')\n"
        "    raise errors.UserError('no teacher')\n"
        "flags.run(main, doc='', default='small.py')\n"
    )

    def start(**extra):
        environment = {"PYTHONPATH": str(ROOT), **extra}
        command = [sys.executable, "p.py"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    short, long, fault = start(), start(OVD_TRACEBACK="1"), start(FAULT="1")
    assert (short.returncode, short.stderr.count("\n")) == (1, 1)
    assert short.stderr.startswith("error: no teacher")
    assert long.returncode == 1
    assert "Traceback" in long.stderr
    assert fault.returncode == 1
    assert "Traceback" in fault.stderr


def test_the_summary_is_one_line_of_json(capsys):
    flags.summary(
        accuracy=np.float32(0.5), loss=float("inf"), steps=np.int64(3), x=None
    )
    out = capsys.readouterr().out
    assert out.endswith("}\n")
    assert json.loads(out) == {"accuracy": 0.5, "loss": None, "steps": 3, "x": None}


def test_a_saved_config_is_loaded_as_it_was(tmp_path):
    config = ConfigDict({"b": (1, 2), "a": ConfigDict({"x": None, "y": "z"})}).lock()
    flags.save(config, tmp_path)
    assert list(json.loads((tmp_path / "config.json").read_text())) == ["a", "b"]
    assert flags.load(tmp_path) == config


def test_knobs_that_a_saved_config_lacks_have_their_defaults(tmp_path):
    old = ConfigDict({"seed": 7, "teacher": ConfigDict({"url": "here"})}).lock()
    flags.save(old, tmp_path)
    config = flags.load(tmp_path, default="configs/default.py")
    assert (config.seed, config.teacher.url, config.teacher.retries) == (7, "here", 4)
    assert config.lora.targets == flags.load_file("configs/default.py").lora.targets

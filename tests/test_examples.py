"""Code of one's own: the examples run, and what cannot be used is refused in a line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ovd_jax.cli import flags
from ovd_jax.cli.choices import not_a_choice
from ovd_jax.errors import UserError
from ovd_jax.evaluate import rejection_identity
from ovd_jax.own_code import build, load_code, names_code
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.search.engine import Engine
from ovd_jax.tasks.base import Task
from ovd_jax.wiring.combinations import check_training
from ovd_jax.wiring.task import make_task

ROOT = Path(__file__).parents[1]
FOREIGN = re.compile("warning|traceback|pytorch|event loop|absl|xla", re.IGNORECASE)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def command_of(example: Path) -> list[str]:
    """The command in the docstring of an example."""
    text = example.read_text().split('"""')[1].replace("\\\n", " ")
    (line,) = re.findall(r"^python (launch/train\.py .*)$", text, re.M)
    return line.split()


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_command_of_each_example_runs(example, tmp_path):
    small = [
        "--config.num_steps=1", "--config.eval_problems=8", "--config.minibatches=1",
        "--config.epochs=1", "--config.problems_per_step=8", "--config.loggers=()",
        f"--config.run_dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command_of(example), *small],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not FOREIGN.search(done.stderr), done.stderr
    assert json.loads(done.stdout.splitlines()[-1])
    (row, *_) = [row for row in read_metrics(tmp_path) if "accuracy" in row]
    assert 0 <= row["accuracy"] <= 1


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("a.py:B", True), ("~/x y/a.py:f_1", True), ("../a.py:B", True),
        ("a.py", False), ("a:B", False), ("math", False), ("a.py:", False), (7, False),
        ("a.py:B.c", False), ("http://127.0.0.1:8000/v1", False),
    ],
)  # fmt: skip
def test_a_file_and_a_name_is_code(value, is_one):
    assert names_code(value) == is_one


BROKEN = {
    "missing": (None, "there is no file"),
    "syntax": ("x = 1\ndef f(:\n", "SyntaxError in line 2"),
    "raises": ("x = 1\n\n1 / 0\n", "ZeroDivisionError in line 3"),
    "imports": ("import nothing_of_this_name\n", "ModuleNotFoundError in line 1"),
    "nameless": ("other = 1\n", "it has other"),
    "empty": ("", "it has nothing"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("knob", ["task", "env", "method", "reward", "search.backend"])
def test_code_that_cannot_be_loaded_is_refused_in_one_line(kind, knob, tmp_path):
    text, said = BROKEN[kind]
    path = tmp_path / f"{kind}.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        load_code(f"{path}:Name", knob)
    assert str(error.value).startswith(f"{knob} is ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("protocol", "missing"),
    [(Task, "stop_strings, step_stop"), (Engine, "identity, draws, find")],
)
def test_a_class_that_lacks_members_is_refused_with_their_names(
    protocol, missing, tmp_path
):
    (tmp_path / "own.py").write_text("class Own:\n    pass\n\ndef f(): ...\n")
    with pytest.raises(UserError, match=missing):
        build(f"{tmp_path}/own.py:Own", "task", protocol)
    with pytest.raises(UserError, match="no class"):
        build(f"{tmp_path}/own.py:f", "task", protocol)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[2.0] * len(texts)", "gave 2.0; a reward"),
        ("[-1] * len(texts)", "gave -1; a reward"),
        ("[float('nan')] * len(texts)", "gave nan; a reward"),
        ("['1'] * len(texts)", "gave '1'; a reward"),
        ("[None] * len(texts)", "gave None; a reward"),
        ("[1.0]", "gave 1 rewards for 2 texts"),
    ],
)
def test_rewards_that_are_none_are_refused(body, said, tmp_path):
    task = rewarded(tmp_path, body)
    with pytest.raises(UserError, match=re.escape(said)):
        task.rewards(task.problems(0, 2), ["a", "b"])


def test_the_reward_of_ones_own_takes_the_place_of_the_tasks(tmp_path):
    task = rewarded(tmp_path, "[len(text) / 10 for text in texts]")
    problems = task.problems(0, 2)
    assert task.rewards(problems, ["", "12345"]) == [0.0, 0.5]
    one, two = task.grade(problems, ["#### 1", "2"])
    assert (one.reward, two.reward) == (0.6, 0.1)
    assert (one.extracted, two.extracted) == ("1", None)  # as the task finds them
    assert task.prompt(problems[0]) == f"{problems[0].question}=\n"


def rewarded(tmp_path, body: str) -> Task:
    path = tmp_path / "own.py"
    path.write_text(f"def reward(problems, texts):\n    return {body}\n")
    config = flags.load_file("configs/default.py")
    config.reward = f"{path}:reward"
    return make_task(config)


def test_attempts_that_a_teacher_of_ones_own_checked_are_its_own(tmp_path):
    path = tmp_path / "own.py"
    config = flags.load_file("configs/default.py")
    config.teacher.model = f"{path}:Own"
    found = []
    for text in ("class Own: ...", "class Own:\n    levels = 10"):
        path.write_text(text)
        found.append(rejection_identity(config, make_teacher=None)["teacher"])
    assert found[0] != found[1]
    assert found[1] == rejection_identity(config, make_teacher=None)["teacher"]


@pytest.mark.parametrize("knob", ["task", "env", "method", "search.backend"])
def test_code_stands_among_the_words_of_its_knobs_alone(knob):
    assert not not_a_choice({knob: "a.py:B"})
    assert not_a_choice({"baseline": "a.py:B"})


def test_a_fine_tuning_takes_no_task_of_ones_own():
    assert "use one of arithmetic, world" in not_a_choice(
        {"task": "a.py:B", "batch_size": 1}
    )


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"task": "FILE:missing"}, "task is"),
        ({"reward": "FILE:missing"}, "reward is"),
        ({"reward": "FILE:number"}, "cannot be called"),
        ({"reward": "brief"}, "write path/to/file.py:Name"),
        ({"teacher.model": "FILE:missing"}, "teacher.model is"),
        ({"continuer.model": "FILE:number"}, "cannot be called"),
        ({"search.backend": "FILE:missing"}, "search.backend is"),
        (
            {"teacher.model": "FILE:Own", "teacher.url": "http://127.0.0.1:9/v1"},
            "one of them is asked",
        ),
        (
            {"teacher.model": "FILE:Own", "method": "on_policy_kd"},
            "reads probabilities of tokens",
        ),
        ({"model": "FILE:Own"}, "is not there"),
    ],
)
def test_code_that_cannot_be_used_is_refused_before_anything_is_loaded(
    knobs, said, tmp_path
):
    (tmp_path / "own.py").write_text("number = 7\n\nclass Own: ...\n")
    config = flags.load_file("configs/default.py")
    values = {k: v.replace("FILE", f"{tmp_path}/own.py") for k, v in knobs.items()}
    config.update_from_flattened_dict(values)
    with pytest.raises(UserError, match=said):
        check_training(config)

"""Whole training runs with a teacher whose server fails at random."""

import collections
import json
import re

import pytest
from teacher_server import FAULTS, TeacherServer, uniform

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.tasks.arithmetic import solve
from ovd_jax.wiring.teacher import make_teacher

STEPS, PROBLEMS, SAMPLES = 3, 4, 3
KNOBS = dict(
    num_steps=STEPS, problems_per_step=PROBLEMS, samples=SAMPLES, minibatches=2,
    epochs=1, loggers=(), eval_problems=4, eval_every=0, checkpoint_every=0,
    max_new_tokens=32, threshold=4, granularity="hybrid", credit="hybrid",
    replacement="suffix", demonstration_tries=2,
)  # fmt: skip


def solve_mostly(text: str, seed: int) -> str:
    """The rest of an arithmetic solution, wrong now and then."""
    question, _, prefix = text.partition("=\n")
    if not re.fullmatch(r"[-+*()\d]+", question):
        return "?"
    solution = "\n".join(solve(question))
    if not solution.startswith(prefix):
        return "#### 1"
    wrong = uniform(text, seed) < 0.3
    return "#### 0" if wrong else solution.removeprefix(prefix)


def run(folder, server, *, async_batches=0, **teacher):
    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.update(KNOBS)
        config.run_dir = str(folder)
        config.async_batches, config.importance_cap = async_batches, 2.0
        config.teacher.update(
            dict(url=server.url, timeout_s=1.0, retries=2, max_concurrency=8) | teacher
        )
    train.main(config)
    return [json.loads(line) for line in (folder / "samples.jsonl").open()]


def weights(folder) -> bytes:
    return (folder / "export" / "model.safetensors").read_bytes()


def per_problem(rows) -> collections.Counter:
    return collections.Counter((row["step"], row["problem_id"]) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("async_batches", [0, 1])
def test_a_run_ends_with_the_same_parameters_whatever_its_server_does(
    async_batches, tmp_path
):
    with TeacherServer(write=solve_mostly) as calm:
        expected = run(tmp_path / "calm", calm, async_batches=async_batches)
    rates = {fault: 0.02 for fault in FAULTS}
    rates |= {"refused": 0.005, "another model": 0.005}  # each lasts for a while
    with TeacherServer(write=solve_mostly, faults=rates, seed=4) as server:
        rows = run(tmp_path / "faulty", server, async_batches=async_batches)
    assert set(server.failed) == set(FAULTS)
    assert rows == expected
    assert weights(tmp_path / "faulty") == weights(tmp_path / "calm")
    assert set(per_problem(rows).values()) == {SAMPLES}
    assert len(rows) == STEPS * PROBLEMS * SAMPLES
    assert any(row["replaced"] for row in rows)
    assert not all(row["replaced"] for row in rows)
    last = read_metrics(tmp_path / "faulty")[-2]
    assert last["teacher_requests"] > 0
    assert 0 < last["teacher_wait_share"] < 1
    assert 0 < last["seconds_sample"] < last["seconds_collecting"]
    assert last["staleness"] == async_batches
    assert sum(r["teacher_retries"] for r in read_metrics(tmp_path / "faulty")[:-1])


@pytest.mark.slow
def test_what_is_dropped_is_written_and_counted_once(tmp_path):
    faults = {"500": 0.2}  # 4 % of all questions fail twice
    with TeacherServer(write=solve_mostly, faults=faults, seed=2) as server:
        rows = run(tmp_path, server, on_failure="drop", retries=1)
    assert set(per_problem(rows).values()) == {SAMPLES}
    dropped = sum("dropped" in row for row in rows)
    assert 0 < dropped < len(rows)
    assert dropped == sum(row["dropped"] for row in read_metrics(tmp_path)[:-1])


@pytest.mark.slow
def test_the_key_is_nowhere_in_what_a_run_leaves_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("OUR_TEACHERS_KEY", "sk-secret")
    with TeacherServer(write=solve_mostly, key="sk-secret") as server:
        run(tmp_path, server, api_key_env="OUR_TEACHERS_KEY")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"sk-secret" not in path.read_bytes()
    config = flags.load(tmp_path)
    assert config.teacher.api_key_env == "OUR_TEACHERS_KEY"


def test_a_key_given_in_place_of_the_name_of_its_variable_is_refused():
    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.teacher.url = "http://127.0.0.1:9/v1"
        config.teacher.api_key_env = "sk-secret"
    with pytest.raises(ValueError, match="not the name of an environment") as caught:
        make_teacher(config)
    assert "sk-secret" not in str(caught.value)

"""A student behind a server is sampled as one in this process: token for token."""

import json
import threading

import pytest
from fakes import TOKENIZER, encode, problem
from teacher_server import TeacherServer

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.cache import DiskCache
from ovd_jax.client.transport import Transport
from ovd_jax.errors import TeacherError
from ovd_jax.evaluation.attempts import Direct, evaluate
from ovd_jax.evaluation.served_student import ServedStudent
from ovd_jax.tasks.arithmetic import ArithmeticTask, solve

PROBLEMS = [problem(f"(3+{n})*2", str(2 * n + 6)) for n in range(6)]


def solved(text: str, seed) -> str:
    """What a student that solves all says after its prompt."""
    question, mark, _ = text.rpartition("=\n")
    return "\n".join(solve(question)) if mark else "2"


def student(server, *, retries=2, wait=False, **options) -> ServedStudent:
    transport = Transport(
        [server.url], name="", key=None, timeout_s=5.0, retries=retries, wait=wait,
        max_concurrency=4, accounting=Accounting(), name_knob="engine_served_name",
    )  # fmt: skip
    options = {"max_new_tokens": 60, "temperature": 0.0} | options
    return ServedStudent(transport, tokenizer=TOKENIZER, **options)


def run(served, *, cache=None):
    solver = Direct(
        served.stream, tokenizer=TOKENIZER, rows=4, identity={}, greedy=True
    )
    return evaluate(
        PROBLEMS, task=ArithmeticTask(), solver=solver, tokenizer=TOKENIZER, samples=1,
        seed=0, cache=cache,
    )  # fmt: skip


@pytest.mark.parametrize("decode", [TOKENIZER.decode, None])
@pytest.mark.parametrize("strict", [False, True])
def test_all_problems_are_answered_by_any_kind_of_server(decode, strict):
    with TeacherServer(write=solved, decode=decode, strict=strict) as server:
        results = run(student(server))
        asked = server.bodies[-6:]
    assert [result.rewards for result in results] == [(1.0,)] * 6
    assert [a.text for r in results for a in r.attempts] == [
        "\n".join(solve(p.question)) for p in PROBLEMS
    ]
    prompts = sorted(str(body["prompt"]) for body in asked)
    expected = [p.question + "=\n" for p in PROBLEMS]
    if decode and not strict:
        expected = [str(list(encode(text))) for text in expected]
    assert prompts == sorted(expected)
    assert all(body["temperature"] == 0.0 for body in asked)
    assert ("top_k" in asked[0]) is not strict


def test_settings_of_the_model_s_folder_do_not_count():
    """vLLM takes what is not said from generation_config.json."""
    with TeacherServer(write=solved, decode=TOKENIZER.decode) as server:
        served = student(server, top_p=0.9, temperature=0.5, stop_ids=(3,))
        list(served.stream([encode("1+1=\n")], seed=5, limits=[7]))
        body = server.bodies[-1]
    assert {k: body[k] for k in ("top_p", "top_k", "repetition_penalty", "min_p")} == {
        "top_p": 0.9, "top_k": -1, "repetition_penalty": 1.0, "min_p": 0.0
    }  # fmt: skip
    assert (body["stop_token_ids"], body["max_tokens"]) == ([3], 7)


def test_draws_are_the_problem_s_own():
    with TeacherServer(write=solved, decode=TOKENIZER.decode) as server:
        served = student(server)
        first, second = encode("1+1=\n"), encode("2+1=\n")
        rows = [row for row, _ in served.stream(
            [first, second], seed=0, samples=2, draws=[[11, 12], [13, 14]]
        )]  # fmt: skip
        together = {(str(b["prompt"]), b["seed"]) for b in server.bodies[-4:]}
        list(served.stream([second], seed=0, samples=2, draws=[[13, 14]]))
        alone = {(str(b["prompt"]), b["seed"]) for b in server.bodies[-2:]}
    assert sorted(rows) == [0, 1, 2, 3]
    assert len(together) == 4
    assert alone < together


def test_faults_of_the_server_change_nothing(tmp_path):
    faults = {"reset": 0.1, "500": 0.1, "truncated": 0.1}
    with TeacherServer(write=solved, decode=TOKENIZER.decode, faults=faults) as server:
        results = run(student(server, retries=8), cache=DiskCache(tmp_path))
    assert [result.rewards for result in results] == [(1.0,)] * 6


def test_a_server_that_stays_away_ends_the_run_and_keeps_what_was_done(tmp_path):
    """Every answer is kept when it comes, not when all are there."""
    seen = threading.Semaphore(3)

    def write(text, seed):
        if "=\n" in text and not seen.acquire(blocking=False):
            server.faults = {"500": 1.0}
        return solved(text, seed)

    with TeacherServer(write=write, decode=TOKENIZER.decode) as server:
        served = student(server, retries=1)
        with pytest.raises(TeacherError, match="HTTP 500"):
            run(served, cache=DiskCache(tmp_path))
        kept = len(list(tmp_path.rglob("*.json")))
        server.faults = {}
        seen.release(100)
        before = len(server.bodies)
        results = run(served, cache=DiskCache(tmp_path))
        assert len(server.bodies) - before == 6 - kept
    assert 0 < kept < 6
    assert [result.rewards for result in results] == [(1.0,)] * 6


@pytest.mark.parametrize("field", ["seed", "max_tokens"])
def test_a_field_that_a_server_refuses_is_left_out(field, caplog):
    def refuses(body):
        return (422, {"detail": f"{field}?"}) if field in body else None

    with TeacherServer(write=solved, refuses=refuses) as server:
        results = run(student(server))
    assert [result.rewards for result in results] == [(1.0,)] * 6
    assert caplog.text.count(f"{field} ") == 1


@pytest.mark.parametrize("field", ["temperature", "stop"])
def test_one_that_decides_what_is_measured_is_not(field):
    def refuses(body):
        return (422, {"detail": f"{field}?"}) if field in body else None

    with TeacherServer(write=solved, refuses=refuses) as server:
        with pytest.raises(TeacherError, match=f"no text: .*{field}"):
            student(server, stop_strings=("####",))


def test_a_problem_that_the_server_refuses_is_wrong_alone(caplog):
    def refuses(body):
        too_long = "(3+4)*2" in str(body["prompt"])
        return (400, {"error": {"message": "too long"}}) if too_long else None

    with TeacherServer(write=solved, refuses=refuses) as server:
        results = run(student(server))
    assert [result.rewards[0] for result in results] == [1, 1, 1, 1, 0, 1]
    assert "too long" in caplog.text


def test_one_that_refuses_every_problem_is_called_the_student(caplog):
    with TeacherServer(write=solved) as server:
        served = student(server)
        server.refuses = lambda body: (400, {"error": {"message": "no"}})
        prompts = [encode(f"1+{n}=\n") for n in range(9)]
        with pytest.raises(TeacherError, match="The student answers no question"):
            list(served.stream(prompts, seed=0))
    assert "The student did not answer a question" in caplog.text


def test_one_that_completes_no_text_says_so():
    with TeacherServer(write=solved, top=-1) as server:  # it refuses all requests
        with pytest.raises(TeacherError, match="completes no text"):
            student(server)


def test_items_hold_text_that_is_no_utf8(tmp_path):
    said = "#### 6\ud800"
    with TeacherServer(
        write=lambda text, seed: said, decode=TOKENIZER.decode
    ) as server:
        results = run(student(server), cache=DiskCache(tmp_path))
    assert json.dumps(results[0].attempts[0].text)

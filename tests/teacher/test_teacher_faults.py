"""A teacher's server fails in every way that servers do; training does not notice."""

import signal
import threading
import time

import pytest
from connected import teachers
from teacher_server import FAULTS, TeacherServer

from ovd_jax.client.replies import Unavailable
from ovd_jax.errors import TeacherError
from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest

REQUESTS = [ScoreRequest("q", "", f"step {i}", whole=True) for i in range(16)]
TOO_LONG = ScoreRequest("q", "", "too long", whole=True)
PROBLEMS = [DemonstrationRequest(f"q {i}", "First, ") for i in range(8)]
SCARCE = {"refused": 0.06, "another model": 0.06}  # each is out of reach for a while


@pytest.fixture
def connect():
    """`connect(server, policy, ...)`: a teacher, closed when the test ends."""
    with teachers(prompt="one_to_ten", timeout_s=1.0, retries=3) as make:

        def connect(server, policy="wait", **changes):
            return make(server, on_failure=policy, **changes)

        yield connect


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_answer_when_the_policy_is_to_wait(fault, connect):
    with TeacherServer() as calm:
        teacher = connect(calm)
        expected = (
            teacher.score(REQUESTS, seed=1),
            teacher.demonstrate(PROBLEMS, seed=2),
        )
    with TeacherServer(faults={fault: SCARCE.get(fault, 0.15)}, seed=1) as server:
        teacher = connect(server)
        answers = teacher.score(REQUESTS, seed=1), teacher.demonstrate(PROBLEMS, seed=2)
    assert server.failed[fault] > 0
    assert teacher.metrics()["teacher_retries"] > 0
    assert answers == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_an_error_when_the_policy_is_to_fail(fault, connect):
    with TeacherServer() as server:
        teacher = connect(server, "fail", retries=1)
        server.faults = {fault: 1.0}
        with pytest.raises(Unavailable, match=server.url):
            teacher.score(REQUESTS[:1], seed=1)


@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_a_question_without_an_answer_is_scored_by_the_policy(policy, connect):
    with TeacherServer() as server:
        teacher = connect(server, policy, retries=0)
        healthy = teacher.score(REQUESTS, seed=1)
        server.faults, server.seed = {"500": 0.3}, 3
        scores = teacher.score(REQUESTS, seed=1)
        server.faults = {"500": 1.0}
        assert teacher.demonstrate(PROBLEMS, seed=1) == [None] * 8
    lost = [score != calm for score, calm in zip(scores, healthy, strict=True)]
    assert 0 < sum(lost) < 16
    for score, is_lost in zip(scores, lost, strict=True):
        if is_lost and policy == "drop":
            assert score is None
        elif is_lost:
            assert (score.value, score.probs) == (9.0, (0.0,) * 9 + (1.0,))
    assert teacher.metrics()["teacher_unanswered"] == sum(lost) + 8


def test_a_request_that_is_refused_is_an_error_at_once_when_the_policy_is_to_fail(
    connect,
):
    with TeacherServer() as server:
        teacher = connect(server, "fail")
        before = len(server.bodies)
        with pytest.raises(TeacherError, match=r"HTTP 400, .*too long"):
            teacher.score([TOO_LONG], seed=0)
        assert len(server.bodies) == before
        assert teacher.metrics()["teacher_retries"] == 0


@pytest.mark.parametrize("policy", ["wait", "accept", "drop"])
def test_else_it_is_left_out_alone_and_never_scored(policy, connect, caplog):
    with TeacherServer() as server:
        teacher = connect(server, policy)
        teacher.metrics()
        refused, scored = teacher.score([TOO_LONG, REQUESTS[0]], seed=0)
        assert teacher.demonstrate([DemonstrationRequest("too long", "")], seed=0) == [
            None
        ]
        assert teacher.feedback([TOO_LONG], seed=0) == [None]
    assert (refused is None, scored is None) == (True, False)
    metrics = teacher.metrics()
    assert (metrics["teacher_unanswered"], metrics["teacher_retries"]) == (3, 0)
    assert caplog.text.count("the prompt is too long") == 2  # score and text


@pytest.mark.parametrize("policy", ["wait", "accept", "drop"])
def test_a_server_that_refuses_every_problem_ends_the_run(policy, connect):
    requests = [ScoreRequest(f"too long {i}", "", "", whole=True) for i in range(20)]
    with TeacherServer() as server:
        teacher = connect(server, policy)
        teacher.score(REQUESTS, seed=0)
        assert teacher.score(requests[:7], seed=0) == [None] * 7
        teacher.score(REQUESTS, seed=0)  # one answer, and it may refuse as many again
        assert teacher.score(requests[:7], seed=0) == [None] * 7
        with pytest.raises(TeacherError, match=r"no question of this run.*too long"):
            teacher.score(requests, seed=0)


def test_a_server_that_is_away_is_waited_for_with_a_message(connect, caplog):
    with TeacherServer() as server:
        teacher = connect(server, retries=0)
        expected = teacher.score(REQUESTS, seed=1)
        server.go_away()
        threading.Timer(1.5, server.come_back).start()
        started = time.monotonic()
        assert teacher.score(REQUESTS, seed=1) == expected
        assert time.monotonic() - started > 1.4
    assert caplog.text.count("The run waits for its teacher") == 1
    assert server.url in caplog.text
    assert "The teacher is back" in caplog.text


def test_a_run_may_start_before_its_server(connect, caplog):
    with TeacherServer() as server:
        server.go_away()
        threading.Timer(1.0, server.come_back).start()
        assert len(connect(server).score(REQUESTS, seed=1)) == 16
        server.go_away()
        with pytest.raises(Unavailable, match="Cannot connect"):
            connect(server, "fail")


@pytest.mark.parametrize("trace", ["name", "weights", "answers"])
def test_another_model_in_the_servers_place_answers_nothing(trace, connect):
    """It is told by its name, by its weights, or by how it signs its answers."""
    with TeacherServer() as server:
        teacher = connect(server, "fail", retries=1)
        server.go_away()
        if trace == "name":
            server.model = "another"
        elif trace == "weights":
            server.weights = "another"
        else:
            server.answers_as = "another"
        server.come_back()
        with pytest.raises(Unavailable, match=r"began with|not 'teacher'"):
            teacher.score(REQUESTS, seed=1)


def test_a_slow_drip_of_bytes_does_not_outlast_the_timeout(connect, monkeypatch):
    """Each byte would start the client's own timeout anew."""
    with TeacherServer() as server:
        teacher = connect(server, "fail", retries=0)
        server.faults = {"drip": 1.0}
        started = time.monotonic()
        with pytest.raises(Unavailable, match="no answer within 1 s"):
            teacher.score(REQUESTS[:1], seed=1)
        assert time.monotonic() - started < 2.5


def test_an_interrupt_ends_the_waiting(connect):
    """As Ctrl-C does; no request is left behind."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.main_thread().ident
    with TeacherServer() as server:
        teacher = connect(server, retries=0)
        server.go_away()
        threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            teacher.score(REQUESTS, seed=1)
        signal.signal(signal.SIGUSR1, before)
        server.come_back()
        assert len(teacher.score(REQUESTS, seed=1)) == 16

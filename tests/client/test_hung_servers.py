"""A server that takes connections and says nothing costs one timeout, not one a
request."""

import functools
import threading
import time

import pytest
from teacher_server import TeacherServer

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.replies import Unavailable
from ovd_jax.client.transport import Transport

TIMEOUT = 1.0
SLACK = 2.0  # seconds, of a busy machine; a stall takes a TIMEOUT for each request


@pytest.fixture
def connect():
    """`connect(*servers, ...)`: a connected transport, closed when the test ends."""
    opened = []

    def make(*servers, retries=2, max_concurrency=8, wait=False):
        transport = Transport(
            [server.url for server in servers], name="", key=None, timeout_s=TIMEOUT,
            retries=retries, wait=wait, max_concurrency=max_concurrency,
            accounting=Accounting(),
        )  # fmt: skip
        opened.append(transport)
        transport.run([transport.connect])
        return transport

    yield make
    for transport in opened:
        transport.close()


def seconds(transport, requests: int = 80) -> float:
    """Of a batch of so many requests."""
    body = {"messages": [{"role": "user", "content": "q"}], "max_tokens": 1}
    jobs = [
        functools.partial(
            transport.post, "/chat/completions", body, priority=f"{n:04}", affinity=n,
            check=lambda reply: None,
        )
        for n in range(requests)
    ]  # fmt: skip
    started = time.monotonic()
    assert len(transport.run(jobs)) == requests
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("when", "which"), [("before", 0), ("meanwhile", 1), ("at the start", 0)]
)
def test_with_one_of_two_servers_stopped_the_other_does_the_work(when, which, connect):
    with TeacherServer(delay=0.05) as one, TeacherServer(delay=0.05) as two:
        alone = seconds(connect(one))
        hung = (one, two)[which]
        stop = functools.partial(setattr, hung, "stopped", True)
        if when == "at the start":
            stop()
        transport = connect(one, two)
        assert transport.model == ("teacher", "/models/teacher")
        if when == "before":
            stop()
        if when == "meanwhile":
            threading.Timer(alone / 4, stop).start()
        assert seconds(transport) < 1.5 * alone + TIMEOUT + SLACK
        assert seconds(transport) < 1.5 * alone + SLACK  # it is known by now
        hung.stopped = False


def test_requests_to_a_hung_server_fail_together_after_one_timeout(connect):
    with TeacherServer() as server:
        transport = connect(server, retries=0, max_concurrency=64)
        server.stopped = True
        started = time.monotonic()
        with pytest.raises(Unavailable, match="no answer within 1 s"):
            seconds(transport, 64)
        assert TIMEOUT * 0.9 < time.monotonic() - started < 2 * TIMEOUT
        server.stopped = False


def test_a_server_that_goes_on_is_used_again(connect):
    with TeacherServer(delay=0.01) as one, TeacherServer(delay=0.01) as two:
        transport = connect(one, two)
        two.stopped = True
        seconds(transport)
        two.stopped = False
        before = len(two.bodies)
        time.sleep(TIMEOUT)  # the look-up that began meanwhile is over
        seconds(transport)
        assert len(two.bodies) > before


def test_all_requests_share_one_look_up(connect):
    with TeacherServer(delay=0.05) as server:
        transport = connect(server, max_concurrency=64)
        before = server.asked_who
        seconds(transport, 64)
        assert server.asked_who == before + 1


def test_requests_that_wait_for_a_server_that_went_away_are_told(connect):
    """Most of them have no place yet when the connection breaks."""
    with TeacherServer(delay=0.2) as server:
        transport = connect(server, retries=0, max_concurrency=2)
        threading.Timer(0.3, server.go_away).start()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            seconds(transport)
        assert time.monotonic() - started < 2.0
        server.come_back()
        seconds(transport, 4)


def test_what_is_fetched_beside_the_model_comes_from_a_living_server(connect):
    with TeacherServer() as one, TeacherServer(info={"eos_token": "<|x|>"}) as two:
        transport = connect(one, two)
        one.stopped = True
        fetch = functools.partial(transport.fetch, "/tokenizer_info")
        assert transport.run([fetch]) == [{"eos_token": "<|x|>"}]
        one.stopped = False


def test_a_transport_closes_at_once_while_a_server_hangs(connect):
    with TeacherServer() as one, TeacherServer() as two:
        transport = connect(one, two)
        two.stopped = True
        seconds(transport)
        started = time.monotonic()
        transport.close()
        transport.close()
        assert time.monotonic() - started < 0.5
        two.stopped = False


@pytest.mark.parametrize("fault", ["500", "429", "reset", "no json", "truncated"])
def test_one_fault_at_the_start_ends_no_program_that_has_no_retries(fault, connect):
    with TeacherServer(faults={fault: 1.0}) as server:
        transport = connect(server, retries=0)
        body = {"messages": [{"role": "user", "content": "q"}], "max_tokens": 16}
        ask = functools.partial(
            transport.post, "/chat/completions", body, priority="", affinity=0,
            check=lambda reply: None,
        )  # fmt: skip
        with pytest.raises(Unavailable):
            transport.run([ask])
        before = server.failed[fault]

        def clear_after_one():
            end = time.monotonic() + 30
            while server.failed[fault] == before and time.monotonic() < end:
                time.sleep(0.001)
            server.faults.clear()

        threading.Thread(target=clear_after_one).start()
        probe = functools.partial(transport.probe, "/chat/completions", body, body)
        assert transport.run([probe])[0].text


@pytest.mark.parametrize(
    "harm", ["drip", "no json", "schema", "empty", "truncated", "reset", "500", "busy"]
)
def test_with_one_of_two_servers_broken_the_other_does_the_work(harm, connect):
    """Though the broken one answers, and always says who it is."""
    with TeacherServer(delay=0.05) as one, TeacherServer(delay=0.05) as two:
        alone = seconds(connect(one))
        transport = connect(one, two, wait=True)
        if harm == "busy":
            two.refuses = lambda body: (503, {"error": "busy"})
        else:
            two.faults = {harm: 1.0}
        assert seconds(transport) < 1.5 * alone + TIMEOUT + SLACK
        for _ in range(3):  # it is given another chance, but rarely
            assert seconds(transport) < 1.5 * alone + TIMEOUT + SLACK
        two.faults, two.refuses = {}, lambda body: None

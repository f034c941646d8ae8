"""Clients that send or read slowly, by purpose, hold no connection of our server."""

import socket
import threading
import time
from collections import Counter

import httpx
import pytest

pytest.importorskip("uvicorn", reason="pip install 'ovd_jax[search]'")
from serving import serving

from ovd_jax.search.serve import make_app

HEADERS_S, ANSWER_S = 1.0, 1.5
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"queries": ["a"]}'
POST = (
    b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)


class Engine:
    """Finds nothing."""

    def best(self, query, topk):
        return ()

    def __len__(self):
        return 0


@pytest.fixture(scope="module")
def port():
    app = make_app(Engine(), 1, Counter(), timeout_s=5.0)
    with serving(app, timeout_s=ANSWER_S, headers_s=HEADERS_S) as url:
        yield int(url.rpartition(":")[2])


def connected(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def drip(client, content: bytes, pause_s: float = 0.1) -> None:
    """Sends a byte now and then, until the other side has enough."""
    for byte in content:
        try:
            client.sendall(bytes([byte]))
        except OSError:
            return
        time.sleep(pause_s)


def all_of(client) -> bytes:
    """What comes until the connection ends."""
    received = bytearray()
    try:
        while part := client.recv(2**16):
            received += part
    except ConnectionResetError:
        pass
    return bytes(received)


ENDLESS = b"GET /health HTTP/1.1\r\n" + b"X-Header: y\r\n" * 20


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", b""),
        (b"", ENDLESS),
        (ENDLESS, ENDLESS),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n", b""),
        (b"\r\n", b"\r\n" * 100),
        (POST[:-1], b""),
        (b"P", b"OST" * 40),
    ],
)
def test_a_request_whose_headers_do_not_end_is_refused(at_once, slowly, port):
    started = time.monotonic()
    with connected(port) as client:
        client.sendall(at_once)
        threading.Thread(target=drip, args=(client, slowly), daemon=True).start()
        assert all_of(client).partition(b"\r\n")[0] in (
            b"HTTP/1.1 408 Request Timeout",
            b"HTTP/1.1 400 Bad Request",
            b"",
        )
    assert time.monotonic() - started < HEADERS_S + 1.0


@pytest.mark.parametrize("begun", [0, 10, 30])
def test_so_is_the_second_request_of_a_connection(begun, port):
    with connected(port) as client:
        client.sendall(REQUEST + ENDLESS[:begun])
        assert b"200 OK" in client.recv(2**16)
        started = time.monotonic()
        drip(client, ENDLESS[begun:])
        assert b"200" not in all_of(client)
        assert time.monotonic() - started < HEADERS_S + 1.5


def test_slow_connections_leave_the_server_to_others(port):
    slow = [connected(port) for _ in range(100)]
    for client in slow:
        client.sendall(ENDLESS)
    answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=2.0)
    assert answer.json() == {"status": "ok", "passages": 0}
    for client in slow:
        with client:
            assert all_of(client).startswith(b"HTTP/1.1 408")


def test_what_comes_in_time_is_answered(port):
    """In pieces, after a pause, and while an answer is computed."""
    with connected(port) as client:
        for _ in range(3):
            drip(client, b"GET /", 0.01)
            time.sleep(HEADERS_S / 3)
            client.sendall(b"health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in client.recv(2**16)
    with connected(port) as client:  # a body may take longer than headers
        client.sendall(POST)
        drip(client, BODY, 1.5 * HEADERS_S / len(BODY))
        assert b"200 OK" in client.recv(2**16)


def test_an_answer_that_is_not_taken_is_given_up():
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": bytes(2**25)})

    with serving(app, timeout_s=ANSWER_S, headers_s=HEADERS_S) as url:
        port = int(url.rpartition(":")[2])
        with connected(port) as client:
            client.sendall(REQUEST)
            time.sleep(ANSWER_S + 0.5)
            assert len(all_of(client)) < 2**25
        with connected(port) as client:  # one that reads has all of it
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert len(all_of(client)) > 2**25

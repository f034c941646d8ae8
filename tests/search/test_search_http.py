"""Client and server of /retrieve, and a server that fails in every way."""

import contextlib
import functools
import json
import socket
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

import fakes
import httpx
import pytest

from ovd_jax.search import http as http_module
from ovd_jax.search.base import Document, Query, SearchError
from ovd_jax.search.engine import Away
from ovd_jax.search.http import Http

GOOD = {"result": [[{"document": {"contents": '"Peru"\nLima\nis it.'}, "score": 2.5}]]}


@contextlib.contextmanager
def server(*answers):
    """Gives one answer a request, then `GOOD`: (status, headers, body), or seconds of
    silence, or None to break the connection. Yields (url, bodies)."""
    left, bodies = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            bodies.append(json.loads(self.rfile.read(length)))
            answer = left.pop(0) if left else (200, {}, json.dumps(GOOD).encode())
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(answer, float):
                time.sleep(answer)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for byte in range(0, len(body), 8):
                with contextlib.suppress(OSError):
                    self.wfile.write(body[byte : byte + 8])
                if "Drip" in headers:
                    time.sleep(float(headers["Drip"]))

        def log_message(self, *_):
            pass

    with fakes.served(Handler) as url:
        yield f"{url}/retrieve", bodies


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http_module, "_BACKOFF", lambda state: 0.01)


def client(url, retries=2, topk=3, timeout_s=30.0):
    return Http(url, topk=topk, timeout_s=timeout_s, retries=retries)


def test_the_request_and_answer_are_those_of_search_r1():
    with server() as (url, bodies):
        ((found,),) = client(url).find([Query("capital?", "q", ("gold",))], [0])
    assert bodies == [{"queries": ["capital?"], "topk": 3, "return_scores": True}]
    assert found == Document("Peru", "Lima\nis it.", "", 2.5)


def reply(body, status=200, **headers):
    return (
        status,
        headers,
        body if isinstance(body, bytes) else json.dumps(body).encode(),
    )


FAULTS = {
    "reset": None,
    "hang": 0.8,
    "drip": reply(GOOD, Drip="0.2"),
    "500": reply({}, 500),
    "429": reply({}, 429, **{"Retry-After": "0.01"}),
    "no json": reply(b"<html>"),
    "truncated": reply(json.dumps(GOOD).encode()[:30]),
    "nested": reply(b"[" * 10**5),
    "schema": reply({"answer": []}),
    "list": reply([1]),
    "null": reply({"result": [[None]]}),
    "no contents": reply({"result": [[{"document": {}}]]}),
    "contents": reply({"result": [[{"document": {"contents": 3}}]]}),
    "score": reply({"result": [[{"document": {"contents": "a"}, "score": "x"}]]}),
    "too few": reply({"result": []}),
    "infinite": reply(
        b'{"result": [[{"document": {"contents": "a"}, "score": 1e999}]]}'
    ),
    "no number": reply(
        b'{"result": [[{"document": {"contents": "a"}, "score": NaN}]]}'
    ),
    "400 digits": reply(
        {"result": [[{"document": {"contents": "a"}, "score": 10**400}]]}
    ),
    "5000 digits": reply(b'{"result": [[' + b"9" * 5000 + b"]]}"),
    "no UTF-8": reply(b'{"result": [["\xff"]]}'),
    "commands": reply(b"\x1b[2J\r\nERROR: all is well"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_and_then_named(fault):
    # Only a server that is slow by purpose is not waited for: others may be busy.
    timeout_s = 0.5 if fault in ("hang", "drip") else 30.0
    with server(FAULTS[fault]) as (url, bodies):
        ((found,),) = client(url, timeout_s=timeout_s).find([Query("q")], [0])
        assert found.title == "Peru"
        assert len(bodies) == 2
    with server(*[FAULTS[fault]] * 3) as (url, bodies):
        with pytest.raises(Away, match=r"server at http.* search.url") as caught:
            client(url, timeout_s=timeout_s).find([Query("q")], [0])
        assert len(bodies) == 3
    assert str(caught.value).isprintable()


def test_halves_of_characters_are_mended_on_both_ways():
    half = {"result": [[{"document": {"contents": "a\ud800\nb"}}]]}
    with server(reply(half)) as (url, bodies):
        ((found,),) = client(url).find([Query("q\udfff")], [0])
    assert found.title == "a\ufffd"
    assert bodies[0]["queries"] == ["q?"]


def test_a_refusal_is_not_tried_again():
    with server(reply({"detail": "no"}, 422)) as (url, bodies):
        with pytest.raises(SearchError, match="HTTP 422") as caught:
            client(url).find([Query("q")], [0])
        assert not isinstance(caught.value, Away)
        assert len(bodies) == 1


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(Away, match=r"127\.0\.0\.1:9/retrieve"):
        client("http://127.0.0.1:9/retrieve", retries=1).find([Query("q")], [0])


def test_an_answer_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(http_module, "_MAX_BYTES", 50)
    with server() as (url, _), pytest.raises(Away, match="more than 50 bytes"):
        client(url, retries=0).find([Query("q")], [0])


def test_more_documents_than_asked_for_are_not_taken():
    many = {"result": [GOOD["result"][0] * 5]}
    with server(reply(many)) as (url, _):
        (found,) = client(url, topk=2).find([Query("q")], [0])
    assert len(found) == 2


def test_many_queries_are_several_requests():
    with server(reply({"result": [[]] * 64}), reply({"result": [[]] * 6})) as (url, b):
        assert client(url).find([Query(str(n)) for n in range(70)], [0] * 70) == (
            [()] * 70
        )
    assert [len(body["queries"]) for body in b] == [64, 6]


@pytest.mark.parametrize("url", ["", "localhost:8001", "file:///etc"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match=r"search.url .* is no URL"):
        client(url)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Our own server over a small corpus, at its URL."""
    pytest.importorskip("uvicorn", reason="pip install 'ovd_jax[search]'")
    from serving import serving

    from ovd_jax.search.bm25 import Bm25
    from ovd_jax.search.serve import make_app

    folder = tmp_path_factory.mktemp("corpus")
    rows = [
        {"id": "7", "title": "Lima", "text": "Lima is the capital of Peru."},
        {"id": "8", "title": "Peru", "text": "A country.\nIts capital lies low."},
        {"id": "9\ud800", "title": "H\udfff", "text": "Half of a pair: \ud83d."},
    ]
    corpus = fakes.write_rows(folder / "c.jsonl", rows)
    with serving(make_app(Bm25(corpus, topk=1, cache=folder), 1, Counter())) as url:
        yield url


def test_our_client_finds_through_our_server(app):
    (first, nothing) = client(f"{app}/retrieve", topk=2, timeout_s=10).find(
        [Query("capital of Peru"), Query("zzz")], [0, 0]
    )
    assert [(d.id, d.title) for d in first] == [("7", "Lima"), ("8", "Peru")]
    assert first[1].text == "A country.\nIts capital lies low."
    assert first[0].score > first[1].score > 0
    assert nothing == ()


def test_without_scores_the_documents_come_bare(app):
    body = {"queries": ["Lima"]}
    answer = httpx.post(f"{app}/retrieve", json=body).json()
    contents = "Lima\nLima is the capital of Peru."
    assert answer == {"result": [[{"id": "7", "contents": contents}]]}
    assert httpx.get(f"{app}/health").json() == {"status": "ok", "passages": 3}


def test_halves_of_characters_in_a_corpus_are_served_as_marks(app):
    """Escaped in its JSON they are in no UTF-8, which an answer is in."""
    for query in ("half", "\ud800 half"):
        body = b'{"queries": [' + json.dumps(query).encode() + b"]}"
        answer = httpx.post(
            f"{app}/retrieve",
            content=body,
            headers={"content-type": "application/json"},
        ).json()
        contents = "H\ufffd\nHalf of a pair: \ufffd."
        assert answer == {"result": [[{"id": "9\ufffd", "contents": contents}]]}


def test_an_error_tells_what_is_wrong_and_not_what_was_sent(app):
    for wrong in ({"queries": ["secret", 7, {"a": "secret"}]}, {"queries": "secret"},
                  {"queries": [], "topk": "secret"}, ["secret"]):  # fmt: skip
        answer = httpx.post(f"{app}/retrieve", json=wrong)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["msg"]
        assert "secret" not in answer.text
    for content in (b"{secret", b"[" * 100_000, b'{"queries": ["\xff"]}', b'"\\ud800"'):
        answer = httpx.post(f"{app}/retrieve", content=content)
        assert 400 <= answer.status_code < 500
        assert "secret" not in answer.text


def test_a_body_over_a_megabyte_is_refused(app):
    fits = {"queries": ["x" * 1000] * 1000}
    assert httpx.post(f"{app}/retrieve", json=fits, timeout=30).status_code == 200
    large = json.dumps({"queries": ["x" * 2**20]}).encode()
    assert httpx.post(f"{app}/retrieve", content=large).status_code == 413
    pieces = (bytes(2**16) for _ in range(17))  # without a Content-Length
    assert httpx.post(f"{app}/retrieve", content=pieces).status_code == 413


def test_there_are_no_pages_about_the_interface(app):
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert httpx.get(app + path).status_code == 404


class Slow:
    """An engine that takes a while for each query."""

    def best(self, query, topk):
        time.sleep(0.2)
        return ()

    def __len__(self):
        return 0


def test_a_request_that_takes_too_long_is_ended():
    """Whether it is the client who is slow, or the engine."""
    pytest.importorskip("uvicorn", reason="pip install 'ovd_jax[search]'")
    from serving import serving

    from ovd_jax.search.serve import make_app

    app = make_app(Slow(), 1, Counter(), timeout_s=2.0, docs=True)
    with serving(app) as url:
        ask = functools.partial(httpx.post, f"{url}/retrieve", timeout=10)
        assert ask(json={"queries": ["a"]}).status_code == 200
        started = time.monotonic()
        assert ask(json={"queries": ["a"] * 100}).status_code == 503
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as half:
            half.sendall(b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                         b"Content-Type: application/json\r\n\r\n{")  # fmt: skip
            assert b"503" in half.recv(100)
        assert time.monotonic() - started < 9.0
        assert httpx.get(f"{url}/docs").status_code == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"queries": "Lima"}, {"queries": [1]}, {"queries": ["x"] * 1025},
     {"queries": [], "topk": 0}, {"queries": [], "topk": 10**9}],
)  # fmt: skip
def test_a_body_that_is_wrong_is_refused(app, body):
    assert httpx.post(f"{app}/retrieve", json=body).status_code == 422

"""Whatever bytes a server sends, it is that request's failure, in one clean line."""

import math

import pytest
from teacher_server import TeacherServer

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.connection import decoded, encoded
from ovd_jax.client.replies import Unavailable
from ovd_jax.client.transport import Transport
from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.text import one_line

NUMBER = "9" * 400
SCORES = '{"choices":[{"text":"7","logprobs":{"top_logprobs":[{"7":%s}]}}]}'
USAGE = '{"choices":[{"text":"7"}],"usage":{"prompt_tokens":%s}}'
BODIES = {
    "deep": "[" * 200_000,
    "deep objects": '{"choices":' * 5000 + "1" + "}" * 5000,
    "deep enough to be read": '{"choices":[{"text":' + "[" * 300 + "]" * 300 + "}]}",
    "infinite log-probability": SCORES % "1e999",
    "no number": SCORES % "NaN",
    "a log-probability of 400 digits": SCORES % f"-{NUMBER}",
    "tokens of 400 digits": USAGE % NUMBER,
    "a number that Python does not read": USAGE % ("9" * 5000),
    "fewer tokens than none": USAGE % -1,
    "infinitely many tokens": USAGE % "1e999",
    "half characters": '{"choices":[{"text":"\\ud800"}],"model":"\\udfff"}',
    "no UTF-8": b'{"choices":[{"text":"\xff\xfe"}]}',
    "UTF-16": USAGE.encode("utf-16"),
    "nothing": "",
    "zeros": bytes(1000),
    "a terminal's commands": "\x1b[2J\x1b]0;owned\x07\x1b[31mred\r\nERROR: all is well",
    "a line without end": '{"choices":"' + "x" * 10**6 + '"}',
    "more than is read": b" " * (65 * 2**20),
}


@pytest.fixture(scope="module")
def server():
    with TeacherServer() as server:
        yield server


@pytest.fixture(scope="module")
def dropping(server):
    teacher = connected(server, "drop")
    yield teacher
    teacher.close()


@pytest.fixture(scope="module")
def failing(server):
    teacher = connected(server, "fail")
    yield teacher
    teacher.close()


def connected(server, policy: str) -> OpenAITeacher:
    server.raw = None
    transport = Transport(
        [server.url], name="", key="key-of-ours", timeout_s=20.0, retries=0,
        wait=False, max_concurrency=8, accounting=Accounting(),
    )  # fmt: skip
    return OpenAITeacher(
        transport, prompt=PROMPTS["digits"], score_rule="argmax", score_temperature=0.7,
        temperature=0.7, max_new_tokens=64, on_failure=policy,
    )  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("status", [200, 500])
def test_no_body_ends_a_run_whose_policy_is_to_drop(name, status, server, dropping):
    body, teacher = BODIES[name], dropping
    raw = body if isinstance(body, bytes) else body.encode()
    requests = [ScoreRequest("q", "", "a step", whole=True)]
    healthy = teacher.score(requests, seed=1)
    server.raw = status, raw
    assert teacher.score(requests, seed=1) == [None]
    if "text" not in str(body) or status == 500:  # else it is a text like any other
        asked = [DemonstrationRequest("q", "First, ")]
        assert teacher.demonstrate(asked, seed=1) == [None]
    server.raw = None
    assert teacher.score(requests, seed=1) == healthy
    assert all(map(math.isfinite, filter(None, teacher.metrics().values())))


@pytest.mark.parametrize("name", BODIES)
def test_an_error_is_one_short_line_that_a_terminal_takes(name, server, failing):
    body = BODIES[name]
    for status in (200, 500):
        server.raw = status, body if isinstance(body, bytes) else body.encode()
        with pytest.raises(Unavailable) as caught:
            failing.score([ScoreRequest("q", "", "a step", whole=True)], seed=1)
        said = str(caught.value)
        assert said.isprintable()
        assert len(said) < 800
        said.encode()
    server.raw = None


def test_an_endless_answer_is_read_up_to_a_size():
    """In pieces and without a length, as a stream that never ends comes."""
    with TeacherServer() as server:
        teacher = connected(server, "fail")
        server.endless = True
        with pytest.raises(Unavailable, match="more than 67108864 bytes"):
            teacher.score([ScoreRequest("q", "", "a step", whole=True)], seed=1)
        server.endless = False
        teacher.close()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf"text"', "text"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'{"\udc00": ["a\ud800b", 1, null]}', {"\ufffd": ["a\ufffdb", 1, None]}),
        (rb'"\\ud800"', r"\ud800"),
    ],
)
def test_json_is_read_with_halves_of_characters_mended(content, value):
    assert decoded(content) == value


def test_a_request_with_half_a_character_is_sent():
    assert encoded({"prompt": "a\ud800b"}) == b'{"prompt": "a?b"}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("x\u00b2 \u2212 \u0915\u094d\u200d\u0937 \u65e5\u672c", None),
        ("a\r\nERROR: b\u2028c\x85d\x0be", "a ERROR: b c d e"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x9b2Jgone", "gone"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1bP1;2|device\x1b\\after", "after"),
        ("\x1bc\x1b(0reset", "reset"),
        ("a\x00b\x7fc\x08d", "abcd"),
        ("user\u202egnp.exe\u2066\u200f\ufeff", "usergnp.exe"),
        ("half \ud800", "half \ufffd"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("\U000e0041hidden", "hidden"),
    ],
)
def test_a_line_is_rid_of_what_moves_a_terminal(text, shown):
    assert one_line(text) == (text if shown is None else shown)

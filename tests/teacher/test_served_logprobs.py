"""A served teacher's probabilities of tokens, from a server that shows its prompt's."""

import contextlib
import time

import pytest
from fakes import TOKENIZER, encode
from logprob_server import place, server

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.replies import Unavailable, parse
from ovd_jax.client.transport import Transport
from ovd_jax.errors import TeacherError
from ovd_jax.teacher.served_logprobs import ServedTokens, check_prompt


@contextlib.contextmanager
def teacher(url: str, top: int = 3):
    transport = Transport(
        [url], name="", key=None, timeout_s=5.0, retries=2, wait=False,
        max_concurrency=4, accounting=Accounting(),
    )  # fmt: skip
    try:
        yield ServedTokens(transport, tokenizer=TOKENIZER, top=top)
    finally:
        transport.close()


def test_each_token_of_a_completion_has_its_likeliest_ones():
    prompt, completion = encode("3+4=\n"), encode("#### 7")
    with server(failures=1) as url, teacher(url) as served:
        served.metrics()
        started = time.perf_counter()
        first, second = served.read([(prompt, completion), (prompt, (2,))])
        seconds = time.perf_counter() - started
        metrics = served.metrics()
    assert len(first) == len(completion)
    for token, found in zip(completion, first, strict=True):
        shown = dict.fromkeys([1, 2, 3, token])
        assert found == {id_: -1.0 - rank for rank, id_ in enumerate(shown)}
    assert second == [{1: -1.0, 2: -2.0, 3: -3.0}]
    assert metrics["token_teacher_retries"] == 1
    assert 0 < metrics["seconds_token_teacher"] <= seconds
    assert 0 < metrics["seconds_token_teacher_waited"] <= seconds  # counted once


def test_a_text_that_is_too_long_for_the_server_is_left_out_and_counted(caplog):
    short, long_ = (encode("3+4=\n"), encode("#### 7")), (encode("3+4=\n"), (2,) * 120)
    with server(longest=100) as url, teacher(url) as served:
        served.metrics()
        first, second, third = served.read([short, long_, short])
        assert second is None
        assert first == third != []
        assert served.metrics()["token_teacher_unanswered"] == 1
        assert "maximum context length" in caplog.text
        with pytest.raises(TeacherError, match="no question of this run"):
            served.read([((1, n), (2,) * 120) for n in range(9)])


def test_another_vocabulary_is_refused():
    with server(shift=1) as url, pytest.raises(ValueError, match="another vocabulary"):
        with teacher(url):
            pass


def test_a_server_that_shows_nothing_of_prompts_is_refused():
    with server(shows=False) as url, pytest.raises(ValueError, match="vLLM does"):
        with teacher(url):
            pass


def test_a_server_that_shows_fewer_tokens_than_asked_for_is_refused_at_once():
    with server() as url, pytest.raises(ValueError, match=r"HTTP 400.*distill.top_k"):
        with teacher(url, top=4):
            pass


def test_places_that_are_of_no_use_again_and_again_end_the_run():
    with server(failures=99) as url, teacher(url) as served:
        with pytest.raises(TeacherError, match=r"shows .* places"):
            served.read([(encode("3+4=\n"), encode("#### 7"))])


def test_places_that_lack_the_token_are_of_no_use():
    body = {"choices": [{"text": "", "prompt_logprobs": [None, place(9, 2)]}]}
    reply = parse(body)
    check_prompt(reply, [5, 9], 2)
    with pytest.raises(Unavailable, match="3 tokens and not 2 with 7 in place 1"):
        check_prompt(reply, [5, 7], 2)
    with pytest.raises(Unavailable, match="shows 2 places of 3 tokens"):
        check_prompt(reply, [5, 9, 9], 2)
    bad = {"9": {"logprob": 0.5, "decoded_token": "x"}}
    with pytest.raises(Unavailable, match=r"0\.5 is no log-probability"):
        parse({"choices": [{"text": "", "prompt_logprobs": [None, bad]}]})

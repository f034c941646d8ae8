"""What servers of many makes answer, read the same way; and what their errors mean."""

import pytest

from ovd_jax.client.endpoint import models_in
from ovd_jax.client.replies import Denied, Refused, Unavailable, parse
from ovd_jax.client.statuses import fault, reply_in, words


@pytest.mark.parametrize(
    "reason",
    [
        "stop", "eos", "eos_token", "STOP", "stop_sequence", "end_turn", "EOS_TOKEN",
        "COMPLETE", "FinishReason.STOP", "tool_calls", {"type": "stop", "matched": 2},
        None, "", "done", "eot", "end", "finish", "user_stop", "completed",
        {"type": "stop", "matched": "an error occurred"}, "content_filter", "STOP_WORD",
    ],
)  # fmt: skip
def test_an_answer_that_the_model_ended_is_whole(reason):
    assert parse({"choices": [{"text": "7", "finish_reason": reason}]}).finished


@pytest.mark.parametrize(
    "reason",
    [
        "length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length", "max_length",
        "max_new_tokens", "max_output_tokens", "max_completion_tokens", "token_limit",
        "FinishReason.MAX_TOKENS", "model_context_window_exceeded", "length_limit",
        {"type": "length", "length": 8}, "incomplete", "max-tokens", "OUTPUT_LIMIT",
        "Length", "max_seq_len", "context_length_exceeded", "finish_length",
    ],
)  # fmt: skip
def test_an_answer_that_ended_at_the_budget_is_cut(reason):
    assert not parse({"choices": [{"text": "7", "finish_reason": reason}]}).finished


@pytest.mark.parametrize(
    "reason",
    [
        "abort", "error", "ABORT", "aborted", "cancelled", "canceled", "network_error",
        "failed", "timeout", "insufficient_system_resource", {"type": "abort"},
        "FinishReason.ERROR", "engine_error", "interrupted", "MALFORMED_RESPONSE",
    ],
)  # fmt: skip
def test_an_answer_that_the_server_broke_off_is_asked_for_again(reason):
    with pytest.raises(Unavailable, match="broke off"):
        parse({"choices": [{"text": "7", "finish_reason": reason}]})


def part(text, kind="text"):
    return {"type": kind, "text": text}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("7", "7"), (None, ""), ([], ""), ([part("7")], "7"),
        ([part("so "), part("7")], "so 7"), (["so ", "7"], "so 7"),
        ([part("7", "output_text")], "7"), (part("7"), "7"),
        ([{"text": "7"}], "7"), ([part({"value": "7"})], "7"),
        ([{"type": "thinking", "thinking": [part("5?")]}, part("7")], "7"),
        ([part("5?", "reasoning"), part("7")], "7"),
        ([{"type": "image_url", "image_url": {}}, part("7")], "7"),
        ([part(None)], ""), ([{"type": "refusal", "refusal": "no"}], ""),
    ],
)  # fmt: skip
def test_content_is_a_text_or_a_list_of_parts(content, text):
    assert parse({"choices": [{"message": {"content": content}}]}).text == text


@pytest.mark.parametrize("content", [7, [7], True, [[[1]]]])
def test_content_that_holds_no_text_is_no_answer(content):
    with pytest.raises(Unavailable, match="shape of a completion"):
        parse({"choices": [{"message": {"content": content}}]})


@pytest.mark.parametrize(
    ("message", "usage"),
    [
        ({"content": "7", "reasoning_content": "so"}, None),
        ({"content": "7", "reasoning": "so"}, None),
        ({"content": [{"type": "thinking", "thinking": "so"}, part("7")]}, None),
        ({"content": None}, {"completion_tokens_details": {"reasoning_tokens": 9}}),
    ],
)
def test_a_server_may_say_that_the_model_thought(message, usage):
    assert parse({"choices": [{"message": message}], "usage": usage}).thought


def test_models_are_listed_in_data_or_alone():
    assert models_in([{"id": "a"}, {"id": "b"}]) == [("a", ""), ("b", "")]


NO_MONEY = [
    (
        429,
        {"message": "You exceeded your current quota.", "code": "insufficient_quota"},
    ),
    (429, {"message": "x", "type": "insufficient_quota"}),
    (402, {"message": "Insufficient Balance"}),
    (402, "Payment Required"),
    (400, {"message": "Your credit balance is too low to access the API."}),
    (400, {"message": "Billing hard limit has been reached"}),
    (403, {"message": "insufficient_user_quota"}),
    (429, {"detail": "Insufficient credits"}),
    (429, {"message": "Your account balance is not enough"}),
    (400, {"error": {"message": "Not enough credits."}}),
    (402, {"error": {"message": "This request requires more credits"}}),
    (429, {"message": "\u8d26\u6237\u4f59\u989d\u4e0d\u8db3"}),
    (400, {"code": "Arrearage", "message": "Access denied"}),
    (401, {"message": "Incorrect API key provided"}),
    (403, {"detail": "Forbidden"}),
]


@pytest.mark.parametrize(("status", "body"), NO_MONEY)
def test_a_server_that_will_not_serve_this_account_denies_all(status, body):
    error = fault(status, body, retry_after=None)
    assert isinstance(error, Denied)
    assert words(body) in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"message": "Rate limit reached for requests"}),
        (429, {"message": "You exceeded your current quota: 15 requests a minute."}),
        (503, "overloaded"), (500, {"detail": "Internal error"}), (529, ""),
        (502, "<html>"), (404, {"message": "The model x does not exist"}),
    ],
)  # fmt: skip
def test_what_may_pass_is_asked_again(status, body):
    assert isinstance(fault(status, body, retry_after=None), Unavailable)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"message": "maximum context length is 2048 tokens", "code": 400}),
        (400, {"code": "context_length_exceeded"}), (413, "Payload Too Large"),
        (422, {"error": "`inputs` must have less than 1024 tokens"}),
        (500, {"message": "the request exceeds the available context size"}),
        (500, {"message": "input is too long"}), (400, {"message": "content filter"}),
        (451, ""),
    ],
)  # fmt: skip
def test_what_concerns_one_request_is_refused_alone(status, body):
    assert type(fault(status, body, retry_after=None)) is Refused


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "seed is not supported"}, "seed is not supported"),
        (
            {"detail": [{"loc": ["body", "seed"], "msg": "extra fields", "ctx": 1}]},
            "body.seed: extra fields",
        ),
        (
            {"detail": [{"loc": ["a"], "msg": "b"}, {"loc": ["c", 0], "msg": "d"}]},
            "a: b; c.0: d",
        ),
        ({"error": "Input validation error"}, "Input validation error"),
        ({"error": {"message": "no"}}, "no"), ([{"error": {"message": "no"}}], "no"),
        ({"message": "no", "code": 3}, "no"), ({"detail": {"msg": "no"}}, "no"),
        ("text\n", "text"), (None, "None"), ({"other": 1}, "{'other': 1}"),
    ],
)  # fmt: skip
def test_the_servers_own_words_are_found_in_any_form(body, said):
    assert words(body) == said


def test_an_error_may_come_with_status_200():
    with pytest.raises(Denied, match="HTTP 402, no credits"):
        reply_in({"error": {"code": 402, "message": "no credits"}})
    with pytest.raises(Refused, match="too long"):
        reply_in({"error": {"code": 400, "message": "too long"}})
    with pytest.raises(Unavailable, match="odd"):
        reply_in({"error": "odd"})


@pytest.mark.parametrize(
    ("choice", "at_stop"),
    [
        ({"finish_reason": {"type": "stop", "matched": "\n"}}, True),
        ({"finish_reason": {"type": "stop", "matched": 2}}, False),
        ({"finish_reason": {"type": "length", "length": 8}}, False),
        ({"finish_reason": "stop", "stop_reason": "\n"}, True),
        ({"finish_reason": "stop", "stop_reason": None}, False),
        ({"finish_reason": "stop_sequence"}, True),
        ({"finish_reason": "eos_token"}, False),
        ({"finish_reason": "stop"}, None),
        ({}, None),
    ],
)
def test_what_stopped_an_answer_is_known_where_the_server_says_so(choice, at_stop):
    assert parse({"choices": [{"text": "7"} | choice]}).at_stop is at_stop

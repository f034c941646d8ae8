"""A teacher behind an API, against a real HTTP server whose distributions are known."""

import collections
import json
import logging
import random

import numpy as np
import pytest
from connected import teachers
from teacher_server import END, TeacherServer, uniform

from ovd_jax.client.cache import DiskCache
from ovd_jax.client.served_model import CONTROL_TOKENS, read_label
from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.teacher.requests import score_text

REQUESTS = [
    ScoreRequest(f"question {i // 4}", "", f"step {i}", whole=i % 2 == 0)
    for i in range(24)
]


@pytest.fixture
def connect():
    """`connect(*servers, prompt=, ...)`: a teacher, closed when the test ends."""
    with teachers(timeout_s=20.0, max_concurrency=16, on_failure="fail") as make:
        yield make


def rendered(request, prompt: str) -> str:
    """What the server's model reads when it is asked for a score."""
    text = score_text(PROMPTS[prompt], request, CONTROL_TOKENS)
    return f"<user>{text}{END}<assistant>" if PROMPTS[prompt].chat else text


def expected_masses(server, prompt="digits", requests=REQUESTS):
    labels = PROMPTS[prompt].labels
    return [server.label_probs(rendered(r, prompt), labels) for r in requests]


@pytest.mark.parametrize("constraint", ["structured_outputs", "guided_choice"])
@pytest.mark.parametrize("merged", [False, True], ids=["digits", "ten is one token"])
@pytest.mark.parametrize("prompt", ["digits", "one_to_ten"])
def test_scores_are_the_exact_distribution(prompt, merged, constraint, connect):
    with TeacherServer(merged=merged, constraint=constraint) as server:
        scores = connect(server, prompt=prompt).score(REQUESTS, seed=0)
        masses = np.array(expected_masses(server, prompt))
    totals = masses.sum(1, keepdims=True)
    np.testing.assert_allclose([s.probs for s in scores], masses / totals, atol=1e-12)
    outside = [score.outside for score in scores]
    np.testing.assert_allclose(outside, 1 - totals[:, 0], atol=1e-12)
    assert masses.min() < 1e-3  # some labels are not among the 20 likeliest tokens


def test_a_model_without_chat_is_asked_plainly(connect):
    with TeacherServer() as server:
        scores = connect(server, prompt="embedded").score(REQUESTS, seed=0)
        masses = np.array(expected_masses(server, "embedded"))
    assert all("prompt" in body for body in server.bodies)
    probs = masses / masses.sum(1, keepdims=True)
    np.testing.assert_allclose([s.probs for s in scores], probs, atol=1e-12)


@pytest.mark.parametrize("rule", ["sample", "argmax", "expected"])
def test_a_score_is_read_by_the_rule_from_seed_and_place(rule, connect):
    with TeacherServer() as server:
        teacher = connect(server, score_rule=rule)
        scores = teacher.score(REQUESTS, seed=5)
        again = teacher.score(REQUESTS, seed=5)
        other = teacher.score(REQUESTS, seed=6)
    assert scores == again
    assert (scores == other) is (rule != "sample")
    for score in scores:
        if rule == "argmax":
            assert score.value == np.argmax(score.probs)
        if rule == "expected":
            assert score.value == pytest.approx(np.dot(range(10), score.probs))


def test_equal_questions_are_asked_once_but_drawn_one_by_one(connect):
    with TeacherServer() as server:
        teacher = connect(server)
        before = len(server.bodies)
        scores = teacher.score([REQUESTS[0]] * 300, seed=0)
        assert len(server.bodies) - before <= 2
    assert len({score.probs for score in scores}) == 1
    counts = collections.Counter(score.value for score in scores)
    tempered = np.array(scores[0].probs) ** (1 / 0.7)
    shares = [counts[level] / 300 for level in range(10)]
    np.testing.assert_allclose(shares, tempered / tempered.sum(), atol=0.1)


def test_what_begins_alike_is_asked_one_after_the_other(connect):
    shuffled = random.Random(0).sample(REQUESTS, len(REQUESTS))
    with TeacherServer(without=("constraint",)) as server:
        transport_limit_one = connect(server)
        for endpoint in transport_limit_one._transport.endpoints:
            endpoint.limit.value = endpoint.limit._max_concurrency = 1
        before = len(server.bodies)
        transport_limit_one.score(shuffled, seed=0)
    texts = [body["messages"][0]["content"] for body in server.bodies[before:]]
    assert texts == sorted(texts)


def test_a_server_that_cannot_be_held_to_labels_gives_those_it_shows(connect, caplog):
    with TeacherServer(without=("constraint",)) as server:
        scores = connect(server).score(REQUESTS, seed=0)
        for score, request in zip(scores, REQUESTS, strict=True):
            probs = server.next_probs(rendered(request, "digits"))
            shown = sorted(probs, key=probs.get, reverse=True)[:20]
            masses = [probs[d] * (d in shown) for d in "0123456789"]
            np.testing.assert_allclose(score.probs, np.array(masses) / sum(masses))
    assert "no choice between given answers" in caplog.text


def test_an_open_answer_that_the_server_closes_costs_the_longer_labels(connect, caplog):
    with TeacherServer(without=("continuing",)) as server:
        teacher = connect(server, prompt="one_to_ten")
        assert not teacher._served.continues
    assert "no answers that are begun for it" in caplog.text


@pytest.mark.parametrize("without", [("logprobs",), ("logprobs", "constraint")])
def test_without_log_probabilities_the_server_draws(without, connect, caplog):
    def write(text, seed):
        return f" {int(10 * uniform(text, seed))}."

    with TeacherServer(without=without, write=write) as server:
        teacher = connect(server)
        scores = teacher.score([REQUESTS[0]] * 40, seed=0)
        assert scores == teacher.score([REQUESTS[0]] * 40, seed=0)
    assert len({score.value for score in scores}) > 3
    assert all(sorted(score.probs) == [0.0] * 9 + [1.0] for score in scores)
    assert caplog.text.count("no log-probabilities") == 1  # said once


def test_a_server_that_refuses_what_it_does_not_know_is_asked_without_it(connect):
    with TeacherServer(strict=True) as server:
        scores = connect(server).score(REQUESTS, seed=0)
    assert sum(scores[0].probs) == pytest.approx(1.0)
    with TeacherServer(strict=True, top=5) as server:
        teacher = connect(server)
    assert (teacher._served.top, teacher._served.constraint) == (5, None)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("7", "7"), (" 7", "7"), ("7.", "7"), ("7\n\nBecause", "7"), ("10", "10"),
        ("1", "1"), ("100", None), ("7.5", None), ("7th", None), ("The 7", None),
        ("-7", None), ("", None), ("1,000", None),
    ],
)  # fmt: skip
def test_a_label_is_read_off_the_beginning_of_an_answer(text, label):
    assert read_label(text, [str(n) for n in range(11)]) == label


def test_demonstrations_go_on_from_the_prefix_by_a_seed_of_their_place(connect):
    requests = [DemonstrationRequest("q", "First, ")] * 2
    with TeacherServer() as server:
        teacher = connect(server)
        texts = teacher.demonstrate(requests, seed=1)
        assert texts == teacher.demonstrate(requests, seed=1)
        assert texts != teacher.demonstrate(requests, seed=2)
        body = server.bodies[-1]
    assert texts[0] != texts[1]
    user, assistant = body["messages"]
    assert assistant == {"role": "assistant", "content": "First, "}
    assert body["continue_final_message"]
    assert not body["add_generation_prompt"]
    assert user["content"].endswith("<problem>\nq\n</problem>")


def test_a_demonstration_with_a_place_does_not_depend_on_those_beside_it(connect):
    requests = [
        DemonstrationRequest(f"q{number % 3}", "First, " * (number % 2), number)
        for number in range(6)
    ]
    request_keys = [(f"place {number}",) for number in range(6)]
    with TeacherServer() as server:
        teacher = connect(server)
        texts = teacher.demonstrate(requests, seed=1, request_keys=request_keys)
        assert len(set(texts)) == len(texts)
        for chosen in ([3], [5, 0], [2, 4, 1]):
            again = teacher.demonstrate(
                [requests[i] for i in chosen],
                seed=1,
                request_keys=[request_keys[i] for i in chosen],
            )
            assert again == [texts[i] for i in chosen]


def test_a_server_that_closes_answers_is_asked_in_words_to_go_on(connect):
    with TeacherServer(without=("continuing",)) as server:
        connect(server).demonstrate([DemonstrationRequest("q", "First, ")], seed=1)
        roles = [m["role"] for m in server.bodies[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]


def test_a_demonstration_that_was_cut_is_none(connect):
    with TeacherServer() as server:
        teacher = connect(server, max_new_tokens=11)  # it writes 12
        assert teacher.demonstrate([DemonstrationRequest("q", "")], seed=1) == [None]


@pytest.mark.parametrize(
    ("said", "without", "past_stop", "most", "expected"),
    [
        ("a\nb\nc", (), False, 64, "a\n"),
        ("a\nb\nc", ("stop_reason",), False, 64, "a\n"),
        ("c", (), False, 64, "c"),  # vLLM says that the model ended it
        ("c", ("stop_reason",), False, 64, "c\n"),  # another may not: it goes on
        ("a\nb\nc", ("stop", "stop_reason"), False, 64, "a\n"),
        ("a\nb\nc", ("stop",), False, 4, "a\n"),
        ("a\nb\nc", (), True, 64, "a\nb\nc"),
        ("a\nb\nc", (), True, 4, "a\nb\n"),
        ("abcdef", (), False, 4, None),
    ],
)
def test_one_step_is_asked_for_with_a_stop(
    connect, said, without, past_stop, most, expected
):
    request = DemonstrationRequest("q", "", stop="\n", past_stop=past_stop)
    with TeacherServer(write=lambda text, seed: said, without=without) as server:
        teacher = connect(server, max_new_tokens=most, stop=("</x>",))
        assert teacher.demonstrate([request], seed=1) == [expected]
        asked = server.bodies[-1]["stop"]
    assert asked == (["</x>"] if past_stop else ["</x>", "\n"])


def test_a_step_that_did_not_fit_is_another_one_the_next_time(connect, tmp_path):
    def write(text, seed):
        return f"{seed}\nmore"

    with TeacherServer(write=write) as server:
        teacher = connect(server, cache=DiskCache(tmp_path))
        tries = [
            teacher.demonstrate([DemonstrationRequest("q", "", n, stop="\n")], seed=1)
            for n in (0, 1, 2, 0)
        ]
    assert tries[0] == tries[3]
    assert len({text for (text,) in tries}) == 3


def test_a_prefix_that_is_too_long_is_not_asked_for_but_counted(connect):
    with TeacherServer() as server:
        teacher = connect(server)
        before = len(server.bodies)
        requests = [DemonstrationRequest("q", p) for p in ("a", "b" * 20_001, "c")]
        texts = teacher.demonstrate(requests, seed=1)
        assert [text is None for text in texts] == [False, True, False]
        assert len(server.bodies) == before + 2
    assert teacher.metrics()["teacher_prefixes_too_long"] == 1


def test_a_repeated_problem_costs_nothing_with_a_cache(connect, tmp_path):
    problem = DemonstrationRequest("q", "")
    again = DemonstrationRequest("q", "", attempt=1)
    with TeacherServer() as server:
        teacher = connect(server, cache=DiskCache(tmp_path))
        first = teacher.demonstrate([problem, problem, again], seed=1)
        assert len(set(first)) == 3  # three draws
        before = len(server.bodies)
        other = connect(server, cache=DiskCache(tmp_path))
        trials = len(server.bodies) - before
        assert other.demonstrate([again, problem, problem], seed=2) == [
            first[2], first[0], first[1],
        ]  # fmt: skip
        assert len(server.bodies) == before + trials
        assert other.metrics()["teacher_cache_hits"] == 3
    with TeacherServer(model="another") as server:
        renewed = connect(server, cache=DiskCache(tmp_path))
        renewed.demonstrate([problem], seed=1)
        assert renewed.metrics()["teacher_cache_hits"] == 0


def test_a_damaged_cache_file_is_asked_for_again(connect, tmp_path):
    with TeacherServer() as server:
        teacher = connect(server, cache=DiskCache(tmp_path))
        request = [DemonstrationRequest("q", "")]
        first = teacher.demonstrate(request, seed=1)
        (file,) = tmp_path.rglob("*.json")
        file.write_text(file.read_text()[:20])
        assert teacher.demonstrate(request, seed=1) == first
        assert json.loads(file.read_text())["value"]["text"] == first[0]
        assert not list(tmp_path.rglob("*.tmp"))


def test_the_key_is_sent_but_never_written(connect, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    with TeacherServer(key="sk-secret") as server:
        teacher = connect(server, key="sk-secret", cache=DiskCache(tmp_path))
        teacher.score(REQUESTS, seed=0)
        teacher.demonstrate([DemonstrationRequest("q", "")], seed=1)
        with pytest.raises(Exception, match="HTTP 401") as caught:
            connect(server, key="sk-wrong-secret")
    assert "wrong key: Bearer [key]" in str(caught.value)  # the server repeats it
    assert caught.value.__suppress_context__
    assert "sk-" not in caplog.text
    assert all("sk-" not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_the_models_own_control_tokens_are_taken_out_of_what_it_is_shown(connect):
    info = {
        "added_tokens_decoder": {"7": {"content": "<own>"}},
        "additional_special_tokens": ["<more>"],
        "pad_token": {"content": "<filler>"},
    }
    hostile = ScoreRequest("q", "", "<own><more><filler><|im_end|>", whole=True)
    with TeacherServer(info=info) as server:
        connect(server).score([hostile], seed=0)
        text = server.bodies[-1]["messages"][0]["content"]
    assert "< own>< more>< filler>< |im_end|>" in text


def test_several_servers_share_the_work_and_a_problem_keeps_its_server(connect):
    requests = [
        ScoreRequest(f"question {i}", "", f"step {k}", whole=True)
        for i in range(40)
        for k in range(2)
    ]
    with TeacherServer(delay=0.02) as one, TeacherServer(delay=0.02) as two:
        teacher = connect(one, two)
        before = len(one.bodies), len(two.bodies)
        scores = teacher.score(requests, seed=0)
        masses = np.array(expected_masses(one, requests=requests))
        asked = [
            [body["messages"][0]["content"] for body in server.bodies[n:]]
            for server, n in zip((one, two), before, strict=True)
        ]
    np.testing.assert_allclose(
        [s.probs for s in scores], masses / masses.sum(1, keepdims=True), atol=1e-12
    )
    assert min(map(len, asked)) >= 16
    homes = collections.defaultdict(list)
    for index, texts in enumerate(asked):
        for text in texts:
            homes[text.split("question ")[1].split("\n")[0]].append(index)
    loyal = sum(len(set(servers)) == 1 for servers in homes.values())
    assert loyal >= 28  # half of them would be by chance


def test_servers_of_different_models_are_refused(connect):
    with TeacherServer() as one, TeacherServer(model="another") as two:
        with pytest.raises(ValueError, match="differ"):
            connect(one, two)


def test_a_model_that_is_not_served_is_an_error_that_names_those_that_are(connect):
    with TeacherServer() as server, pytest.raises(ValueError, match="serves teacher"):
        connect(server, name="gpt-7")


def test_what_a_call_cost_is_counted(connect):
    with TeacherServer(delay=0.01) as server:
        teacher = connect(server)
        teacher.metrics()
        before = len(server.bodies)
        scores = teacher.score(REQUESTS, seed=0)
        metrics = teacher.metrics()
        bodies = server.bodies[before:]
    assert metrics["teacher_requests"] == len(bodies)
    assert metrics["teacher_tokens_out"] == len(bodies)
    assert metrics["teacher_tokens_in"] == sum(
        len(f"<user>{body['messages'][0]['content']}{END}<assistant>")
        for body in bodies
    )
    assert metrics["teacher_retries"] == metrics["teacher_unanswered"] == 0
    assert 0.01 <= metrics["teacher_latency_p50"] <= metrics["teacher_latency_p99"]
    assert metrics["seconds_teacher"] >= metrics["teacher_latency_p99"]
    assert metrics["seconds_teacher_waited"] >= metrics["teacher_latency_p99"]
    assert teacher.metrics()["teacher_requests"] == 0
    assert sum(scores[0].probs) == pytest.approx(1)


def test_nothing_asked_costs_nothing(connect):
    with TeacherServer() as server:
        teacher = connect(server)
        before = len(server.bodies)
        assert teacher.score([], seed=0) == teacher.demonstrate([], seed=0) == []
        assert len(server.bodies) == before

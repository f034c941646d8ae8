"""Concurrency that follows the server, places that are handed out, and what is counted,
with numbers worked by hand."""

import asyncio
import email.utils
import math
import time

import pytest
from teacher_server import TeacherServer

from ovd_jax.client.accounting import Accounting, auc, entropy, percentile
from ovd_jax.client.distribution import LabelReader
from ovd_jax.client.endpoint import models_in, retry_after
from ovd_jax.client.limit import Limit, Pool
from ovd_jax.client.replies import Unavailable, parse
from ovd_jax.client.transport import Transport
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import PROMPTS


def test_the_limit_doubles_a_round_until_congestion_and_then_grows_by_one():
    limit = Limit(100, slow_s=10.0)
    for _ in range(8):
        limit.answered(sent=0.0, now=1.0)
    assert limit.value == 16  # 8 answers to the first 8
    limit.congested(sent=1.0, now=2.0)
    assert limit.value == 8
    for _ in range(8):
        limit.answered(sent=2.0, now=3.0)
    assert limit.value == pytest.approx(9, abs=0.1)


def test_requests_that_were_out_together_halve_the_limit_once():
    limit = Limit(100, slow_s=10.0)
    for now in (2.0, 2.1, 2.2):
        limit.congested(sent=1.0, now=now)
    assert limit.value == 4
    limit.congested(sent=2.05, now=3.0)  # sent after the first sign
    assert limit.value == 2


def test_the_limit_stays_between_one_and_its_bound():
    limit = Limit(10, slow_s=10.0)
    for _ in range(50):
        limit.answered(sent=0.0, now=1.0)
    assert limit.value == 10
    for now in range(10):
        limit.congested(sent=now, now=now + 0.5)
    assert limit.value == 1


def test_a_slow_answer_is_a_sign_of_congestion():
    limit = Limit(100, slow_s=10.0)
    limit.answered(sent=0.0, now=10.5)
    assert limit.value == 4


class Place:
    def __init__(self, max_concurrency: int, cooldown_until=0.0):
        self.limit = Limit(max_concurrency, slow_s=1.0)
        self.outstanding, self.open = 0, True
        self.cooldown_until = cooldown_until


def taken(pool, *requests):
    """The places that `requests` of (priority, affinity) get, in the order of time."""

    async def take_all():
        given = []

        async def take(priority, affinity):
            place = await pool.take(priority=priority, affinity=affinity)
            given.append((priority, place))

        tasks = [asyncio.create_task(take(*request)) for request in requests]
        returned = 0
        while len(given) < len(tasks):
            before = len(given)
            await asyncio.sleep(0.001)
            if len(given) == before:  # nothing moves until a place is given back
                pool.give_back(given[returned][1])
                returned += 1
        return given

    return asyncio.run(take_all())


def test_waiting_requests_are_served_in_their_order():
    pool = Pool([Place(1)])
    given = taken(pool, (5, 0), (9, 0), (2, 0), (7, 0))
    assert [priority for priority, _ in given] == [
        5,
        2,
        7,
        9,
    ]  # 5 came when all was free


def test_a_problem_goes_to_its_own_server_unless_that_is_full():
    one, two = Place(2), Place(3)
    given = taken(Pool([one, two]), *[(priority, 3) for priority in range(5)])
    assert [place is two for _, place in given] == [True] * 3 + [False] * 2


def test_a_place_that_is_freed_goes_to_those_who_are_at_home_there():
    one, two = Place(1), Place(1)
    given = taken(Pool([one, two]), (0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 1))
    assert all(place is (one, two)[order % 2] for order, place in given)


def test_servers_that_failed_rest_while_another_is_there():
    one, two = Place(100, cooldown_until=math.inf), Place(100)
    assert all(place is two for _, place in taken(Pool([one, two]), (0, 0), (1, 0)))
    assert taken(Pool([one]), (0, 0)) == [(0, one)]  # better than none


def test_a_place_is_not_lost_with_the_request_that_waited_for_it():
    async def run():
        pool = Pool([Place(1)])
        first = await pool.take(priority=0, affinity=0)
        waiting = asyncio.create_task(pool.take(priority=1, affinity=0))
        await asyncio.sleep(0)
        pool.give_back(first)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return await asyncio.wait_for(pool.take(priority=2, affinity=0), 1)

    assert asyncio.run(run()).outstanding == 1


class Peaks(Accounting):
    """Notes how many requests were out whenever one was answered."""

    def __init__(self):
        super().__init__()
        self.endpoints, self.most = [], 0

    def answered(self, seconds, **tokens):
        super().answered(seconds, **tokens)
        self.most = max([self.most, *(place.outstanding for place in self.endpoints)])


@pytest.mark.slow
@pytest.mark.parametrize("busy_above", [None, 6])
def test_concurrency_grows_to_its_bound_and_shrinks_where_the_server_says_so(
    busy_above,
):
    """Each answer takes so long that a busy machine, too, has more requests in by then
    than the server bears."""
    requests = [ScoreRequest("q", "", f"step {i}", whole=True) for i in range(80)]
    with TeacherServer(delay=0.3) as server:
        transport = Transport(
            [server.url], name="", key=None, timeout_s=20.0, retries=9, wait=False,
            max_concurrency=24, accounting=(peaks := Peaks()),
        )  # fmt: skip
        teacher = OpenAITeacher(
            transport, prompt=PROMPTS["digits"], score_rule="argmax",
            score_temperature=1, temperature=1, max_new_tokens=8, on_failure="fail",
        )  # fmt: skip
        server.busy_above = busy_above
        peaks.endpoints = transport.endpoints
        assert len(teacher.score(requests, seed=0)) == 80
        limit = transport.endpoints[0].limit.value
        teacher.close()
    if busy_above is None:
        assert limit == peaks.most == 24
    else:
        assert peaks.take()["teacher_retries"] > 0
        assert limit < 12


def test_retry_after_is_seconds_or_a_date():
    assert retry_after(None) is None
    assert retry_after("7") == 7.0
    assert retry_after("-1") == 0.0
    assert retry_after("soon") is None
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert retry_after(later) == pytest.approx(100, abs=2)


def showing(logprobs) -> dict:
    return {"choices": [{"text": "7", "logprobs": logprobs}]}


@pytest.mark.parametrize(
    "body",
    [
        None, [], "text", {}, {"choices": None}, {"choices": []}, {"choices": [None]},
        {"choices": [{}]}, {"choices": [{"text": 7}]}, {"choices": [{"message": None}]},
        {"choices": [{"text": "7"}], "usage": {"prompt_tokens": "many"}},
        showing({"top_logprobs": [{"7": float("nan")}]}),
        showing({"top_logprobs": [{"7": 3.5}]}),  # a logit
        showing({"top_logprobs": [{"7": "x"}]}),
        showing({"content": [{"top_logprobs": [7]}]}),
        showing([1]),
    ],
)  # fmt: skip
def test_a_body_of_another_shape_is_no_answer(body):
    with pytest.raises(Unavailable):
        parse(body)


def test_tokens_that_read_alike_are_summed_and_masked_ones_left_out():
    rows = [("7", 0.25), ("8", 0.5), ("7", 0.125)]
    top = [{"token": t, "logprob": math.log(p)} for t, p in rows]
    top.append({"token": "9", "logprob": -9999.0})
    chat = {
        "message": {"content": None},
        "logprobs": {"content": [{"top_logprobs": top}]},
    }
    reply = parse({"choices": [chat]})
    assert reply.first_tokens == pytest.approx({"7": 0.375, "8": 0.5})
    assert (reply.text, reply.finished) == ("", True)


def test_the_models_of_a_server_are_listed_with_their_weights():
    body = {"data": [{"id": "a", "root": "/a"}, {"id": "b"}]}
    assert models_in(body) == [("a", "/a"), ("b", "")]
    for wrong in ({}, {"data": []}, {"data": [{}]}, [], None):
        with pytest.raises(Unavailable):
            models_in(wrong)


def read(labels, answers, **options):
    """Masses of `labels`; `answers` maps (prefix, allowed or None) to tokens."""
    asked = []

    async def next_tokens(prefix, allowed):
        asked.append((prefix, allowed))
        return answers[prefix, allowed]

    reader = LabelReader(labels, **{"constrained": True} | options)
    return asyncio.run(reader.masses(next_tokens)), asked


def test_labels_that_are_all_shown_need_one_answer():
    masses, asked = read("012", {("", None): {"0": 0.1, "1": 0.2, "2": 0.3, "x": 0.4}})
    assert masses == pytest.approx([0.1, 0.2, 0.3])
    assert asked == [("", None)]


def test_a_label_that_is_not_shown_is_scaled_from_a_constrained_answer():
    """2 is a quarter as likely as 1, which has 0.2."""
    answers = {
        ("", None): {"1": 0.2, "0": 0.1, "x": 0.7},
        ("", ("0", "1", "2")): {"1": 4 / 7, "0": 2 / 7, "2": 1 / 7},
    }
    masses, _ = read("012", answers)
    assert masses == pytest.approx([0.1, 0.2, 0.05])


def test_where_no_label_is_shown_another_word_is_allowed_and_gives_the_scale():
    """0 is as likely as a tenth of "The", which has 0.5."""
    answers = {
        ("", None): {"The": 0.5, "\n": 0.4},
        ("", ("0", "1", "The")): {"The": 10 / 13, "0": 1 / 13, "1": 2 / 13},
    }
    assert read("01", answers)[0] == pytest.approx([0.05, 0.1])


def test_a_longer_label_takes_its_share_from_the_one_that_begins_it():
    """P(1) = 0.5 and a 0 follows with 0.2; "10" is no token."""
    answers = {
        ("", None): {"1": 0.5, "2": 0.3},
        ("", ("1", "2", "10")): {"1": 0.625, "2": 0.375},
        ("1", None): {".": 0.6, "0": 0.2},
    }
    masses, _ = read(("1", "2", "10"), answers)
    assert masses == pytest.approx([0.4, 0.3, 0.1])


def test_a_label_that_is_one_token_or_two_has_the_mass_of_both():
    answers = {
        ("", None): {"1": 0.5, "10": 0.25},
        ("", ("1", "10")): {"1": 2 / 3, "10": 1 / 3},
        ("1", None): {".": 0.8, "0": 0.2},
    }
    assert read(("1", "10"), answers)[0] == pytest.approx([0.4, 0.35])


def test_words_are_followed_through_all_their_tokens():
    answers = {
        ("", None): {"g": 0.5, "bad": 0.25},
        ("", ("good", "bad")): {"g": 2 / 3, "bad": 1 / 3},
        ("g", None): {"oo": 0.5, "ood": 0.25},
        ("g", ("ood",)): {"oo": 2 / 3, "ood": 1 / 3},
        ("goo", None): {"d": 1.0},
    }
    assert read(("good", "bad"), answers)[0] == pytest.approx([0.375, 0.25])


def test_percentiles_entropy_and_auc_worked_by_hand():
    assert percentile(range(1, 201), 50) == 100
    assert percentile(range(1, 201), 99) == 198
    assert percentile([], 50) is None
    assert entropy([4, 0, 0]) == 0.0
    assert entropy([1, 1, 2]) == pytest.approx(1.5 * math.log(2))
    assert auc([5, 7], [5, 1, 9]) == pytest.approx((0.5 + 1 + 0 + 1 + 1 + 0) / 6)
    assert auc([], [1]) is auc([1], []) is None

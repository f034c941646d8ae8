"""Searches under way: what one finds depends on itself alone, and nobody waits for
ever."""

import threading
import time

import pytest
from search_fakes import TOKENIZER, Student, dialogue_in, encode, problem
from teacher_server import TeacherServer
from test_search import Scripted

from ovd_jax.cli import flags
from ovd_jax.client.accounting import Accounting
from ovd_jax.client.cache import DiskCache
from ovd_jax.client.transport import Transport
from ovd_jax.conversation.batch import History
from ovd_jax.search.base import Document, Query, SearchError
from ovd_jax.search.engine import Away, Search
from ovd_jax.search.pool import SearchBatch, SearchThreads
from ovd_jax.search.simulated import ServedWriter, Simulated
from ovd_jax.search.simulator_prompts import PROMPTS
from ovd_jax.wiring.env import make_dialogue, make_env, make_pool

POOLS = [SearchThreads, SearchBatch]
SEARCHES = [(("row", n), Query(f"query {n % 3}"), 100 + n) for n in range(8)]


def found(pool, searches):
    pool.start(searches)
    documents = pool.take([key for key, _, _ in searches])
    return dict(zip([key for key, _, _ in searches], documents, strict=True))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("company", [1, 2, 3, 5, 8])
def test_what_a_search_finds_does_not_depend_on_those_beside_it(pool, company):
    whole = found(pool(Search(Scripted(draws=True))), SEARCHES)
    assert len(set(whole.values())) == len(SEARCHES)  # each from a seed of its own
    for start in range(0, len(SEARCHES), company):
        part = SEARCHES[start : start + company][::-1]
        some = found(pool(Search(Scripted(draws=True))), part)
        assert some == {key: whole[key] for key, _, _ in part}


@pytest.mark.parametrize("pool", POOLS)
def test_a_resumed_evaluation_finds_in_the_cache_what_it_found_before(pool, tmp_path):
    engine = Scripted(draws=True)
    before = found(pool(Search(engine, cache=DiskCache(tmp_path))), SEARCHES[:5])
    asked = len([query for queries, _ in engine.asked for query in queries])
    resumed = Search(engine, cache=DiskCache(tmp_path))
    after = found(pool(resumed), SEARCHES)
    assert resumed.metrics()["search_cache_hits"] == 5
    assert len([q for queries, _ in engine.asked for q in queries]) == asked + 3
    assert before.items() <= after.items()


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("questions", [("b",), ("c", "a"), ("d", "c", "b", "a")])
def test_a_conversation_reads_the_same_whatever_is_beside_it(questions, samples):
    """In rollouts, and where the teacher's turn searches."""

    def write(text, sample, rng):
        if "Doc 1(" in text:
            return "<answer> x </answer>"
        return f"<think> {text[3]} </think>\n<search> who </search>"

    def talked(names):
        talk = dialogue_in(SearchBatch(Search(Scripted(draws=True))))
        prompts = [encode(f"Q: {name}\n") for name in names]
        rows = talk.generate(Student(write), prompts, seed=3, samples=samples)
        turns = [History((f"<search> {name} </search>",)) for name in names]
        looked = talk.look_up(
            turns, [150] * len(names), seed=4, problems=[problem(n) for n in names]
        )
        read = [[TOKENIZER.decode(row.tokens) for row in group] for group in rows]
        return dict(zip(names, zip(read, looked, strict=True), strict=True))

    whole = talked("abcd")
    assert len(set(whole["a"][0])) == samples
    assert talked(questions) == {name: whole[name] for name in questions}


def failing_on(text):
    class Engine(Scripted):
        def find(self, queries, seeds):
            if any(query.text == text for query in queries):
                raise SearchError("no such thing")
            return super().find(queries, seeds)

    return Engine()


@pytest.mark.parametrize("pool", POOLS)
def test_an_error_in_one_view_leaves_the_searches_of_the_other_alone(pool):
    training = pool(Search(failing_on("bad")))
    evaluation = training.view()
    training.start([(("a",), Query("good"), 1), (("b",), Query("fine"), 2)])
    evaluation.start([(("a",), Query("bad"), 3)])  # equal keys do not meet
    with pytest.raises(SearchError, match="no such thing"):
        evaluation.take([("a",)])
    documents = training.take([("a",), ("b",)])
    assert [found[0].title for found in documents] == ["good", "fine"]


def test_training_and_evaluation_have_views_of_their_own():
    config = flags.load_file("configs/eval_qa.py")
    config.search.backend = "none"
    pool = make_pool(config, training=True)
    env = make_env(config, None, TOKENIZER)
    training, evaluation = (
        make_dialogue(config, env, TOKENIZER, pool, training=training).tools.pool
        for training in (True, False)
    )

    training.start([((0,), Query("a"), 0)])
    with pytest.raises(KeyError):
        evaluation.take([(0,)])
    assert training.take([(0,)]) == [()]


def test_a_closed_pool_waits_for_no_engine_and_starts_no_search():
    class Gone(Scripted):
        def find(self, queries, seeds):
            super().find(queries, seeds)
            raise Away("gone")

    engine = Gone()
    pool = SearchThreads(Search(engine, on_failure="wait"))
    pool.start([((n,), Query(str(n)), n) for n in range(100)])
    while len(engine.asked) < 32:
        time.sleep(0.001)
    assert all(t.daemon for t in threading.enumerate() if t.name == "search")
    pool.close()
    started = time.perf_counter()
    with pytest.raises(SearchError, match="ended before its engine was back"):
        pool.take([(0,)])
    assert time.perf_counter() - started < 1.0
    assert len(engine.asked) == 32


@pytest.mark.parametrize("early", [True, False])
def test_who_waits_for_an_engine_hears_of_what_failed_meanwhile(early):
    """A search that is there already is given all the same; other views wait on."""

    class Gone(Scripted):
        def find(self, queries, seeds):
            if queries[0].text == "gone":
                raise Away("gone")
            return super().find(queries, seeds)

    whole = SearchThreads(Search(Gone(), on_failure="wait"))
    training, other = whole.view(), whole.view()
    training.start([(("a",), Query("here"), 1), (("b",), Query("gone"), 2)])
    other.start([(("a",), Query("here"), 1)])
    assert training.take([("a",)])[0][0].title == "here"
    ends = threading.Timer(0.0 if early else 0.3, training.end, [KeyError("judge")])
    ends.start()
    time.sleep(0.2 if early else 0.0)
    started = time.perf_counter()
    with pytest.raises(KeyError, match="judge"):
        training.take([("b",)])
    assert time.perf_counter() - started < 2.0
    training.end(KeyError("another"))  # the first one is what is told
    assert other.take([("a",)])[0][0].title == "here"
    whole.close()


def test_a_document_is_found_as_soon_as_its_thread_is_free():
    class Slow(Scripted):
        def find(self, queries, seeds):
            time.sleep(0.02)
            return super().find(queries, seeds)

    pool = SearchThreads(Search(Slow()))
    started = time.perf_counter()
    documents = found(pool, [((n,), Query(str(n)), n) for n in range(64)])
    assert time.perf_counter() - started < 64 * 0.02 / 2
    assert documents[63,] == (Document("63", "0", "1", 0.5),)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("trained", "evaluated"), [(3, 5), (0, 2), (4, 0)])
def test_each_view_counts_its_own_searches(pool, trained, evaluated):
    whole = pool(Search(Scripted()))
    training, evaluation = whole.view(), whole.view()
    for view, number in ((training, trained), (evaluation, evaluated)):
        found(view, SEARCHES[:number])
    for view, number in ((training, trained), (evaluation, evaluated), (whole, 0)):
        assert view.metrics()["search_queries"] == number
        assert view.metrics()["search_queries"] == 0


def test_what_an_evaluation_asks_a_simulator_is_not_counted_in_training():
    told = Query("a", "Who?", ("Ada",))
    with TeacherServer(write=lambda text, seed: "Doc 1: x") as server:
        transport = Transport(
            [server.url], name="", key=None, timeout_s=5.0, retries=1, wait=False,
            max_concurrency=8, accounting=Accounting(),
        )  # fmt: skip
        writer = ServedWriter(transport, chat=True, temperature=0.8, max_tokens=60)
        engine = Simulated(
            writer, prompt=PROMPTS["chat"], topk=1, share=lambda step: float(step)
        )
        pool = SearchThreads(Search(engine, with_golds=True))
        training, evaluation = pool.view(), pool.view()
        training.begin(1)  # all that is told is noisy
        for number in range(3):
            found(training, [((number,), told, number)])
        found(evaluation, [((number,), Query("b"), number) for number in range(5)])
        learnt, held_out = training.metrics(), evaluation.metrics()
        pool.close()
    names = ("search_queries", "search_model_requests", "search_noise_share")
    assert [learnt[name] for name in names] == [3, 3, 1.0]
    assert [held_out[name] for name in names] == [5, 5, 0.0]

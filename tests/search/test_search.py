"""Backends as a whole: cache, policy, and what an engine gets to see."""

import json

import pytest

from ovd_jax.client.cache import DiskCache
from ovd_jax.search import engine as engine_module
from ovd_jax.search.base import Document, Query, SearchError
from ovd_jax.search.engine import Away, Nothing, Search


class Scripted:
    """Finds one document that tells what was asked; fails as often as `errors` say."""

    identity = {"engine": "scripted"}  # noqa: RUF012

    def __init__(self, errors=(), draws=False):
        self.errors, self.draws, self.asked = list(errors), draws, []

    def find(self, queries, seeds):
        self.asked.append((list(queries), list(seeds)))
        if self.errors:
            raise self.errors.pop(0)
        return [
            (Document(query.text, str(seed), "1", 0.5),)
            for query, seed in zip(queries, seeds, strict=True)
        ]


QUERIES = [Query("a", "Who?", ("Ada",)), Query("b"), Query("a", "Who?", ("Ada",))]
SEEDS = [1, 2, 3]


def test_every_query_is_answered_in_its_place_and_equal_ones_are_put_once():
    engine = Scripted()
    found = Search(engine).search(QUERIES, seeds=SEEDS)
    assert [documents[0].title for documents in found] == ["a", "b", "a"]
    (asked,) = engine.asked
    assert [query.text for query in asked[0]] == ["a", "b"]


def test_made_up_documents_are_drawn_for_each_query_from_its_own_seed():
    search = Search(Scripted(draws=True))
    first, again = (search.search(QUERIES, seeds=SEEDS) for _ in range(2))
    other = search.search(QUERIES, seeds=[4, 5, 6])
    assert first == again
    assert first[0] != first[2]  # equal queries, two draws
    assert first[1] != other[1]


def test_golds_reach_an_engine_in_training_only():
    told, untold = Scripted(), Scripted()
    Search(told, with_golds=True).search(QUERIES, seeds=SEEDS)
    Search(untold).search(QUERIES, seeds=SEEDS)
    assert told.asked[0][0][0] == QUERIES[0]
    assert all(query == Query(query.text) for query in untold.asked[0][0])


def test_what_was_found_is_found_again_without_the_engine(tmp_path):
    cache = DiskCache(tmp_path)
    first = Search(Scripted(), cache=cache).search(QUERIES, seeds=SEEDS)
    engine = Scripted([SearchError("gone")])
    search = Search(engine, cache=cache)
    assert search.search(QUERIES, seeds=[7, 8, 9]) == first
    assert not engine.asked
    assert search.metrics()["search_cache_hits"] == 2


@pytest.mark.parametrize("draws", [True, False])
def test_the_cache_keeps_apart_what_differs(tmp_path, draws):
    cache = DiskCache(tmp_path)
    engine = Scripted(draws=draws)
    search = Search(engine, cache=cache, with_golds=True)
    search.search([Query("a", "Who?", ("Ada",))], seeds=[0])
    search.search([Query("a", "Who?", ("Bob",))], seeds=[0])
    search.search([Query("a")], seeds=[0])
    assert len(engine.asked) == 3
    search.search([Query("a")], seeds=[1])
    assert len(engine.asked) == 3 + draws
    engine.identity = {"engine": "another"}
    search.search([Query("a")], seeds=[1])
    assert len(engine.asked) == 4 + draws


def test_a_damaged_file_in_the_cache_is_asked_for_again(tmp_path):
    search = Search(Scripted(), cache=DiskCache(tmp_path))
    first = search.search([Query("a")], seeds=[0])
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:-20])
    assert search.search([Query("a")], seeds=[0]) == first
    json.loads(path.read_text())


def test_a_failure_is_raised_or_finds_nothing_as_the_policy_says():
    with pytest.raises(SearchError, match="gone"):
        Search(Scripted([Away("gone")]), on_failure="fail").search(QUERIES, seeds=SEEDS)
    search = Search(Scripted([Away("gone")]), on_failure="empty")
    assert search.search(QUERIES, seeds=SEEDS) == [(), (), ()]
    metrics = search.metrics()
    assert metrics["search_failures"] == 2
    assert metrics["search_empty"] == 3
    assert search.metrics()["search_failures"] == 0


def test_what_failed_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path)
    Search(Scripted([Away("gone")]), cache=cache, on_failure="empty").search(
        QUERIES, seeds=SEEDS
    )
    assert not list(tmp_path.rglob("*.json"))


def test_an_engine_that_is_away_is_waited_for_but_a_refusal_is_not(monkeypatch, caplog):
    monkeypatch.setattr(engine_module, "_PAUSE", 0.0)
    engine = Scripted([Away("gone")] * 20)
    found = Search(engine, on_failure="wait").search(QUERIES, seeds=SEEDS)
    assert [documents[0].title for documents in found] == ["a", "b", "a"]
    assert len(engine.asked) == 21
    assert len(caplog.records) == 1  # not one a try
    with pytest.raises(SearchError, match="never"):
        Search(Scripted([SearchError("never")]), on_failure="wait").search(
            QUERIES, seeds=SEEDS
        )


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="wait, empty, fail"):
        Search(Nothing(), on_failure="hope")


def test_nothing_is_what_none_finds():
    assert Search(Nothing()).search(QUERIES, seeds=SEEDS) == [(), (), ()]


def test_no_queries_are_no_question():
    engine = Scripted()
    assert Search(engine).search([], seeds=[]) == []
    assert not engine.asked

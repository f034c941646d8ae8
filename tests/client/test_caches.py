"""A cache that cannot be written costs a warning and no run."""

import json
from pathlib import Path

import pytest

from ovd_jax.client.cache import DiskCache
from ovd_jax.paths import writable
from ovd_jax.search.base import Document
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.corpus import write_corpus


@pytest.fixture(params=["below a file", "a file", "no rights"])
def unwritable(request, tmp_path) -> Path:
    """A folder that nothing can be written to, whoever runs the tests."""
    (tmp_path / "file").write_text("mine")
    return {
        "below a file": tmp_path / "file" / "cache",
        "a file": tmp_path / "file",
        "no rights": Path("/proc/cache"),
    }[request.param]


def test_answers_are_not_kept_and_that_is_said_once(unwritable, caplog):
    cache = DiskCache(unwritable)
    for number in range(3):
        cache.put({"question": number}, {"text": "a"})
        assert cache.get({"question": number}) is None
    assert caplog.text.count(f"the cache {unwritable} cannot be written") == 1


def test_an_index_is_made_for_this_program_alone(unwritable, tmp_path, caplog):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "1", "title": "Oslo", "text": "a city"}) + "\n")
    for _ in range(2):
        engine = Bm25(corpus, topk=1, cache=unwritable)
        (found,) = engine.best("oslo", 1)
        assert found.title == "Oslo"
    assert caplog.text.count(f"The cache {unwritable} cannot be written") == 1


def test_a_corpus_is_made_for_this_program_alone(unwritable):
    path = write_corpus([Document(id="1", title="Oslo", text="a city")], unwritable)
    assert json.loads(path.read_text())["title"] == "Oslo"
    assert path.parent == writable(unwritable) != unwritable


def test_a_cache_that_can_be_written_is_the_one_that_was_named(tmp_path):
    assert writable(tmp_path / "new" / "cache") == tmp_path / "new" / "cache"
    assert not list((tmp_path / "new" / "cache").iterdir())

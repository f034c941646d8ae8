"""Real retrieval over small corpora."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ovd_jax.search.base import Query
from ovd_jax.search.bm25 import Bm25, highest

ROWS = [
    {"id": "0", "title": "Lima", "text": "Lima is the capital of Peru."},
    {"id": "1", "title": "Quito", "text": "Quito is the capital of Ecuador."},
    {"id": "2", "title": "Beyoncé", "text": "An American singer."},
    {"id": "3", "title": "Peru", "text": "Peru, Peru and once more Peru."},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def engine(tmp_path):
    return Bm25(write(tmp_path / "c.jsonl", ROWS), topk=2, cache=tmp_path / "index")


def ids(engine, text):
    ((*found,),) = engine.find([Query(text)], [0])
    return [document.id for document in found]


def test_the_best_passages_come_first(engine):
    assert ids(engine, "What is the capital of Peru?") == ["0", "3"]
    assert ids(engine, "Which capital has Ecuador?") == ["1", "0"]


def test_a_document_is_whole(engine):
    ((document, *_),) = engine.find([Query("Ecuador")], [0])
    assert (document.title, document.text) == ("Quito", ROWS[1]["text"])
    assert document.score > 0


def test_accents_and_case_do_not_matter(engine):
    assert ids(engine, "BEYONCE") == ids(engine, "beyoncé") == ["2"]


@pytest.mark.parametrize("text", ["", "the of", "zzz", "?!", "\ud800", "x" * 10**6])
def test_a_query_without_known_words_finds_nothing(engine, text):
    assert ids(engine, text) == []


def test_fewer_passages_than_asked_for_are_no_error(engine):
    assert sorted(d.id for d in engine.best("capital Peru", 50)) == ["0", "1", "3"]


def test_of_equals_the_first_are_taken():
    scores = np.float32([0, 2, 1, 1, 1, 0])
    assert highest(scores, 3).tolist() == [1, 2, 3]
    assert highest(scores, 6).tolist() == [1, 2, 3, 4]
    assert highest(np.zeros(4, np.float32), 2).tolist() == []


def test_the_index_is_built_once_a_content(tmp_path, monkeypatch):
    first, cache = write(tmp_path / "a.jsonl", ROWS), tmp_path / "index"
    Bm25(first, topk=1, cache=cache)
    (folder,) = cache.iterdir()
    made = folder.stat().st_mtime_ns
    moved = write(tmp_path / "b.jsonl", ROWS)
    assert ids(Bm25(moved, topk=1, cache=cache), "Ecuador") == ["1"]
    assert folder.stat().st_mtime_ns == made
    write(moved, ROWS[::-1])
    changed = Bm25(moved, topk=1, cache=cache)
    assert ids(changed, "Ecuador") == ["1"]
    assert len(list(cache.iterdir())) == 2  # and nothing half made


def test_the_index_is_mapped_and_not_read(engine):
    arrays = [engine._index.scores[name] for name in ("data", "indices", "indptr")]
    assert all(isinstance(array, np.memmap) for array in arrays)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"c.jsonl:2 is no passage"),
        ("[]", r"c.jsonl:2 is no passage"),
        ('{"id": "1", "title": "t"}', r"c.jsonl:2 .*'text'"),
        ('{"id": 1, "title": "t", "text": "x"}', r"c.jsonl:2: id must"),
        ("", r"c.jsonl:2 is no passage"),
    ],
)
def test_a_line_that_is_no_passage_is_named(tmp_path, line, message):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{json.dumps(ROWS[0])}\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=message):
        Bm25(path, topk=1, cache=tmp_path / "index")
    assert not list((tmp_path / "index").glob("*"))


@pytest.mark.parametrize("text", ["", '{"id": "1", "title": "", "text": "the"}\n'])
def test_a_corpus_without_words_is_refused(tmp_path, text):
    path = tmp_path / "c.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="no words"):
        Bm25(path, topk=1, cache=tmp_path / "index")


def test_a_corpus_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"search.corpus 'nowhere.jsonl' is no file"):
        Bm25("nowhere.jsonl", topk=1, cache=tmp_path)


def test_searching_leaves_a_jax_that_is_there_alone_and_takes_no_device():
    program = (
        "import sys, jax\n"
        "import ovd_jax.search.bm25\n"
        "from jax._src import xla_bridge\n"
        "import bm25s.selection\n"
        "assert sys.modules['jax'] is jax and jax.lax.add\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert not bm25s.selection.JAX_IS_AVAILABLE\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()

"""Real retrieval over small corpora."""

import json
import subprocess
import sys

import numpy as np
import pytest
from fakes import write_rows

from ovd_jax.search.base import Query
from ovd_jax.search.bm25 import Bm25, highest
from ovd_jax.search.words import words_of

ROWS = [
    {"id": "0", "title": "Lima", "text": "Lima is the capital of Peru."},
    {"id": "1", "title": "Quito", "text": "Quito is the capital of Ecuador."},
    {"id": "2", "title": "Beyoncé", "text": "An American singer."},
    {"id": "3", "title": "Peru", "text": "Peru, Peru and once more Peru."},
]


@pytest.fixture
def engine(tmp_path):
    return Bm25(
        write_rows(tmp_path / "c.jsonl", ROWS), topk=2, cache=tmp_path / "index"
    )


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
    first, cache = write_rows(tmp_path / "a.jsonl", ROWS), tmp_path / "index"
    Bm25(first, topk=1, cache=cache)
    (folder,) = cache.iterdir()
    made = folder.stat().st_mtime_ns
    moved = write_rows(tmp_path / "b.jsonl", ROWS)
    assert ids(Bm25(moved, topk=1, cache=cache), "Ecuador") == ["1"]
    assert folder.stat().st_mtime_ns == made
    write_rows(moved, ROWS[::-1])
    changed = Bm25(moved, topk=1, cache=cache)
    assert ids(changed, "Ecuador") == ["1"]
    assert len(list(cache.iterdir())) == 2  # and nothing half made


@pytest.mark.parametrize("harm", ["gone", "empty", "cut", "text"])
@pytest.mark.parametrize("file", ["offsets", "data", "indptr", "vocab", "params"])
def test_a_broken_index_is_built_anew(file, harm, tmp_path, caplog):
    """Such as a disk that was full, or a folder copied in part, leaves behind."""
    corpus = write_rows(tmp_path / "c.jsonl", ROWS)
    Bm25(corpus, topk=2, cache=tmp_path / "index")
    (path,) = (tmp_path / "index").rglob(f"*{file}*")
    content = path.read_bytes()
    path.unlink()
    if harm != "gone":
        broken = {"empty": b"", "cut": content[: len(content) // 2], "text": b"no"}
        path.write_bytes(broken[harm])
    for warned in (True, False):
        caplog.clear()
        engine = Bm25(corpus, topk=2, cache=tmp_path / "index")
        assert ids(engine, "What is the capital of Peru?") == ["0", "3"]
        assert ("is broken" in caplog.text) == warned


def test_the_index_is_mapped_and_not_read(engine):
    arrays = [engine._index.scores[name] for name in ("data", "indices", "indptr")]
    assert all(isinstance(array, np.memmap) for array in arrays)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"c.jsonl:2 is not a JSON object"),
        ("[]", r"c.jsonl:2 is a JSON list"),
        ("[" * 10**5, r"c.jsonl:2 is not a JSON object"),
        ('{"id": "1", "title": "t"}', r"c.jsonl:2 .*text must"),
        ('{"title": "t", "text": "x"}', r"c.jsonl:2 .*id must"),
        ('{"id": "1", "title": "t", "text": 3}', r"c.jsonl:2 .*text must"),
        ('{"id": "1", "contents": ["x"]}', r"c.jsonl:2 .*text must"),
        ('{"id": NaN, "title": "t", "text": "x"}', r"c.jsonl:2 .*id must"),
    ],
)
def test_a_line_that_is_no_passage_is_named(tmp_path, line, message):
    path = tmp_path / "c.jsonl"
    path.write_text(f"{json.dumps(ROWS[0])}\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=message):
        Bm25(path, topk=1, cache=tmp_path / "index")
    assert not list((tmp_path / "index").glob("*"))


def test_blank_lines_are_no_passages(tmp_path):
    path = tmp_path / "c.jsonl"
    first, *rest = map(json.dumps, ROWS)
    path.write_text(f"\n  \n{first}\n\n" + "\r\n".join(rest) + "\n\n\n", "utf-8")
    engine = Bm25(path, topk=4, cache=tmp_path / "index")
    assert [engine[number].id for number in range(len(engine))] == ["0", "1", "2", "3"]
    assert ids(engine, "Ecuador") == ["1"]


@pytest.mark.parametrize(
    ("row", "title", "text"),
    [
        ({"id": "7", "contents": '"Lima"\nLima is a city.'}, "Lima", "Lima is a city."),
        ({"id": 7, "contents": "Lima is a city."}, "", "Lima is a city."),
        ({"id": 7, "title": "Lima", "contents": "A\nB"}, "Lima", "A\nB"),
        ({"_id": "7", "title": "Lima", "text": "A city."}, "Lima", "A city."),
        ({"docid": 7, "text": "A city of Lima."}, "", "A city of Lima."),
        ({"id": 7, "title": None, "text": "Lima."}, "", "Lima."),
    ],
)
def test_corpora_may_have_the_columns_of_known_ones(tmp_path, row, title, text):
    engine = Bm25(
        write_rows(tmp_path / "c.jsonl", [row]), topk=1, cache=tmp_path / "index"
    )
    assert (engine[0].id, engine[0].title, engine[0].text) == ("7", title, text)
    assert ids(engine, "Lima") == ["7"] or "Lima" not in title + text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Café of São Paulo", ["cafe", "sao", "paulo"]),
        ("Ελλάδα, Москва́ ёж", ["ελλαδα", "москва", "еж"]),
        ("東京都", ["東京", "京都", "東", "京", "都"]),
        ("日本のiPhone 15", ["日本", "本の", "日", "本", "iphone", "15"]),
        ("中", ["中"]),
        ("がく", ["がく"]),
        ("ไทย", ["ไท", "ทย"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("বাংলা தமிழ்", ["বাংলা", "தமிழ்"]),
        ("العَرَبِيَّة", ["العَرَبِيَّة"]),
        ("한국어 문장", ["한국어", "한국", "국어", "문장"]),
        ("부산은", ["부산은", "부산", "산은"]),
        ("na\u00efve na\u0131\u0308ve co\u00adop", ["naive", "na\u0131ve", "coop"]),
    ],
)
def test_words_are_those_of_their_script(text, words):
    assert list(words_of(text)) == words


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("猫", {"0", "1"}), ("水", {"2"}), ("國 history", {"3"}), ("は", {"1"}),
        ("猫とは何か", {"0", "1"}), ("や", {"4"}), ("ไ", {"5"}), ("𠮷", {"6"}),
        ("北", {"3"}), ("犬", set()), ("ほ", set()),
    ],
)  # fmt: skip
def test_a_single_character_of_a_script_without_spaces_is_found(tmp_path, query, found):
    titled = [
        ("猫", "Cat."), ("", "三毛猫は好きです"), ("", "喝水吧"), ("", "國 in 北京"),
        ("", "や"), ("", "ไก่"), ("", "𠮷野家"),
    ]  # fmt: skip
    rows = [
        {"id": str(n), "title": title, "text": text}
        for n, (title, text) in enumerate(titled)
    ]
    engine = Bm25(
        write_rows(tmp_path / "c.jsonl", rows), topk=9, cache=tmp_path / "index"
    )
    assert set(ids(engine, query)) == found


def test_pairs_of_characters_tell_more_than_single_ones(tmp_path):
    texts = ["京の都、東の山。", "東京都の山。", "都山京東"]
    rows = [{"id": str(n), "title": "", "text": text} for n, text in enumerate(texts)]
    engine = Bm25(
        write_rows(tmp_path / "c.jsonl", rows), topk=3, cache=tmp_path / "index"
    )
    assert ids(engine, "東京都")[0] == "1"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("日本の首都", "0"), ("東京", "0"), ("中国的首都", "1"), ("เมืองหลวง", "2"),
        ("भारत की राजधानी", "3"), ("столица", "4"), ("수도", "5"),
        ("서울", "5"), ("한국", "5"), ("ភ្នំពេញ", "6"), ("ວຽງຈັນ", "7"),
        ("Sao Paulo", "8"),
        ("Столица", "4"), ("中国", "1"), ("กรุงเทพ", "2"), ("दिल्ली", "3"),
    ],
)  # fmt: skip
def test_passages_are_found_in_any_script(tmp_path, query, found):
    texts = [
        "東京は日本の首都です。", "北京是中国的首都。", "กรุงเทพเป็นเมืองหลวงของไทย",
        "दिल्ली भारत की राजधानी है।", "Москва — столи́ца России.",
        "서울은 한국의 수도 이다.", "ភ្នំពេញជារាជធានី", "ວຽງຈັນເປັນນະຄອນຫຼວງ", "São Paulo",
    ]  # fmt: skip
    rows = [{"id": str(n), "title": "", "text": t} for n, t in enumerate(texts)]
    engine = Bm25(
        write_rows(tmp_path / "c.jsonl", rows), topk=1, cache=tmp_path / "index"
    )
    assert ids(engine, query) == [found]


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

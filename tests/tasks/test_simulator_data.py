"""Rows that teach a model to be a search engine."""

import json
import random
from pathlib import Path

import pytest
from fakes import write_rows

from ovd_jax import make_simulator_data
from ovd_jax.cli import flags
from ovd_jax.search.base import Document, Query
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.simulator_prompts import PROMPTS, read
from ovd_jax.tasks.data.simulator_data import (
    Pair,
    corpus_pairs,
    excerpt,
    is_held_out,
    load_recorded,
    recorded_pairs,
    rows,
)
from ovd_jax.tasks.grading.qa_metrics import holds

CITIES = ("Lima", "Quito", "Oslo", "Rome", "Bonn", "Cairo", "Delhi", "Tunis")
PASSAGES = [
    {"id": f"{n}", "title": f"Land {n}", "text": f"The capital of land {n} is {city}."}
    for n, city in enumerate(CITIES)
] + [{"id": "x", "title": "Capitals", "text": "Every land has a capital, they say."}]


def run(question="Capital of land 0?", ids=("0", "x"), em=True, query="capital land 0"):
    steps = [
        {"type": "think", "text": "I look."},
        {"type": "search", "query": query},
        {"type": "documents", "ids": list(ids)},
        {"type": "answer", "text": "Lima"},
    ]
    return {"question": question, "answers": ["Lima"], "em": em, "steps": steps}


@pytest.fixture
def engine(tmp_path):
    corpus = write_rows(tmp_path / "corpus.jsonl", PASSAGES)
    return Bm25(corpus, topk=3, cache=tmp_path / "index")


def pairs_of(tmp_path, engine, *runs):
    recorded = load_recorded([write_rows(tmp_path / "runs.jsonl", runs)])
    return list(recorded_pairs(recorded, engine))


def test_useful_documents_hold_the_answer_and_noisy_ones_do_not(tmp_path, engine):
    (pair,) = pairs_of(tmp_path, engine, run(ids=("x", "0")))
    assert pair.query == Query("capital land 0", "Capital of land 0?", ("Lima",))
    assert pair.useful[0].id == "0"
    assert len(pair.noisy) >= 3
    assert not {d.title for d in pair.noisy} & {"Land 0", "Capitals"}
    assert not any(holds(d.text, ["Lima"]) for d in pair.noisy)


@pytest.mark.parametrize(
    ("ids", "em", "useful"),
    [(("0",), False, True), (("1",), False, False), (("1",), True, True),
     ((), True, False), (("gone",), True, False)],
)  # fmt: skip
def test_what_was_found_is_useful_if_it_holds_the_answer_or_the_run_ended_well(
    tmp_path, engine, ids, em, useful
):
    (pair,) = pairs_of(tmp_path, engine, run(ids=ids, em=em))
    assert bool(pair.useful) == useful


def test_queries_are_made_of_any_corpus(engine):
    pairs = list(corpus_pairs(engine, 20, seed=0))
    assert pairs == list(corpus_pairs(engine, 20, seed=0))
    assert pairs != list(corpus_pairs(engine, 20, seed=1))
    for pair in pairs:
        assert pair.useful[0].title in pair.query.text
        assert pair.useful[0] not in pair.noisy


def documents(name, count):
    return tuple(Document(f"{name} {n}", f"{name} text {n}") for n in range(count))


def test_both_kinds_have_as_many_rows_and_documents():
    pairs = [
        Pair(Query(f"query {n}", "the question", ("gold",)), documents("good", 4),
             documents("bad", 5))
        for n in range(200)
    ] + [Pair(Query("short"), documents("good", 1), documents("bad", 5))]  # fmt: skip
    made = list(rows(pairs, PROMPTS["plain"], count=3, told_share=0.5, seed=0))
    assert len(made) == 400
    noisy = ["noisy" in row["prompt"].splitlines()[-1] for row in made]
    assert sum(noisy) == 200
    for row, is_noisy in zip(made, noisy, strict=True):
        found = read(row["completion"], 5)
        assert [d.title.split()[0] for d in found] == [
            "bad" if is_noisy else "good"
        ] * 3
    told = sum("the question" in row["prompt"] for row in made)
    assert 0.3 < told / 400 < 0.7
    assert all(("gold" in r["prompt"]) == ("the question" in r["prompt"]) for r in made)


def test_an_excerpt_is_short_and_keeps_the_gold():
    rng = random.Random(0)
    words = [f"w{n}" + rng.choice(["", "", "."]) for n in range(200)]
    for place in (0, 60, 150, 199):
        text = " ".join([*words[:place], "Gold", *words[place + 1 :]])
        shown = excerpt(text, ["gold"])
        assert len(shown.split()) <= 30
        assert holds(shown, ["gold"])
    assert excerpt("a  short\ntext", ["gold"]) == "a short text"
    assert excerpt(" ".join(words), ["gold"]).split() == words[:30]


def test_turns_are_thought_and_query(tmp_path):
    (recorded,) = load_recorded([write_rows(tmp_path / "runs.jsonl", [run()])])
    assert recorded.turns == (("I look.", "capital land 0"),)


@pytest.mark.parametrize(
    "row",
    [{}, {"question": "q"}, run() | {"steps": [{"type": "search"}]},
     run() | {"steps": 3}],
)  # fmt: skip
def test_a_row_that_is_no_run_is_named(tmp_path, row):
    path = write_rows(tmp_path / "runs.jsonl", [run(), row])
    with pytest.raises(ValueError, match=r"runs.jsonl:2 is no recorded run"):
        load_recorded([path])


def test_the_program_keeps_questions_apart_and_writes_rows_for_sft(
    tmp_path, engine, capsys
):
    questions = [f"Question {n}?" for n in range(50)]
    runs = write_rows(
        tmp_path / "runs.jsonl", [run(question) for question in questions]
    )
    config = flags.load_file("configs/simulator_data.py")
    config.corpus = str(tmp_path / "corpus.jsonl")
    config.index_dir = str(tmp_path / "index")
    config.trajectories = str(tmp_path / "*uns.jsonl")
    config.output = str(tmp_path / "out" / "rows.jsonl")
    config.corpus_queries = 5
    config.told_share = 1.0
    make_simulator_data.main(config)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = Path(config.output).read_text("utf-8").splitlines()
    made = [json.loads(line) for line in lines]
    assert summary["rows"] == len(made) > 0
    kept = [question for question in questions if is_held_out(question, 0.2)]
    assert 0 < len(kept) == summary["runs_held_out"] < 25
    text = "".join(row["prompt"] for row in made)
    assert not any(question in text for question in kept)
    assert sum(question in text for question in questions) == 50 - len(kept)
    assert runs.is_file()


def test_a_pattern_that_names_nothing_is_said(tmp_path):
    with pytest.raises(ValueError, match="names no file"):
        make_simulator_data.recorded_files(str(tmp_path / "*.jsonl"))
    assert make_simulator_data.recorded_files("") == []

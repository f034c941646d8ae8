"""The embedded models of the made-up world, and the quickstart that they make up."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from configs import quickstart_search
from ovd_jax.search.base import Query
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.corpus import write_corpus
from ovd_jax.tasks.qa_prompts import PROMPTS as QA_PROMPTS
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.teacher.requests import score_text
from ovd_jax.toy.tokenizers import FOLDER, world_tokenizer
from ovd_jax.toy.world import Need, World
from ovd_jax.toy.world_examples import judgement, labelled_turns
from ovd_jax.wiring.models import find_model, load_tokenizer
from ovd_jax.wiring.search import make_search
from ovd_jax.wiring.teacher import make_teacher

ROOT = Path(__file__).parents[2]
ROLES = ("student", "teacher")


@pytest.mark.parametrize("role", ROLES)
def test_the_models_read_and_write_as_the_world_does(role):
    tokenizer = load_tokenizer(find_model("world", role))
    assert tokenizer.get_vocab() == world_tokenizer().get_vocab()


def test_the_models_are_small():
    files = [path for role in ROLES for path in (FOLDER / f"world_{role}").iterdir()]
    assert sum(path.stat().st_size for path in files) < 10e6


def test_the_agent_is_asked_as_it_was_taught():
    example = judgement(World(), random.Random(0))
    branch = example.branches[0]
    question, turn = example.pieces[0][0], example.pieces[1][0]
    asked = ScoreRequest(
        question.removeprefix("Question: ").removesuffix("\n"), "", turn, whole=False
    )
    shown = score_text(PROMPTS["world"], asked, ())
    assert shown == question + turn + branch.pieces[-2][0]
    assert question == QA_PROMPTS["world"].text.format(question=asked.question)
    assert PROMPTS["world"].demonstrate == QA_PROMPTS["world"].text


@pytest.mark.slow
def test_the_agent_tells_right_turns_from_wrong_ones():
    config = quickstart_search.get_config()
    requests, exact = labelled_turns(World(), 120)
    scores = make_teacher(config).score(requests, seed=0)
    good = [s.value >= config.threshold for s in scores]
    right = [label >= config.threshold for label in exact]
    agreed = sum(a == b for a, b in zip(good, right, strict=True))
    assert agreed > 0.9 * len(exact)


@pytest.mark.slow
def test_the_agent_finds_what_the_world_is_like():
    config, world = quickstart_search.get_config(), World()
    engine = make_search(config, training=False)
    facts = random.Random(0).sample(world.facts, 40)
    queries = [Query(Need(f.subject, f.relation).queries[0]) for f in facts]
    found = engine.search(queries, seeds=range(len(queries)))
    told = [
        any(document.text == fact.sentence for document in documents)
        for fact, documents in zip(facts, found, strict=True)
    ]
    assert sum(told) > 0.8 * len(facts)


def test_bm25_finds_every_fact_of_the_world(tmp_path):
    world = World()
    corpus = write_corpus(world.documents(), tmp_path)
    assert write_corpus(world.documents(), tmp_path) == corpus
    engine = Bm25(corpus, topk=2, cache=tmp_path)
    for fact in world.facts:
        query = Need(fact.subject, fact.relation).queries[0]
        (found,) = engine.find([Query(query)], [0])
        assert fact.sentence in [document.text for document in found], query


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_few_steps_of_the_quickstart_teach_the_student_to_search_twice(tmp_path):
    """With BM25 and coarse shapes, for which few programs are compiled."""
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "launch/train.py"),
            "--config=configs/quickstart_search.py", f"--config.run_dir={tmp_path}",
            "--config.search.backend=bm25", "--config.num_steps=6",
            "--config.eval_problems=64", "--config.eval_every=0",
            "--config.min_rows=64", "--config.prompt_multiple=256",
        ],
        stdout=subprocess.PIPE, text=True, check=True, timeout=900,
    )  # fmt: skip
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["accuracy_after"] > summary["accuracy_before"] + 0.05
    assert summary["accuracy_teacher"] > 0.6
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    first, last = rows[0], rows[-1]
    assert first["eval_searches/world_1hop"] < 2
    name = "eval_searches/world_2hop"
    assert last[name] > first[name] + 0.2

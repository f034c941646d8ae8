"""One whole training run of a search agent, whose engine and teacher write down all
that they are asked."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from teacher_server import TeacherServer

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.wiring.models import find_model, load_tokenizer
from ovd_jax.wiring.task import make_task

STEPS, PROBLEMS, SAMPLES, HELD_OUT, TRIES = 4, 4, 2, 6, 3
KNOBS = {
    "num_steps": STEPS, "problems_per_step": PROBLEMS, "samples": SAMPLES,
    "minibatches": 2, "epochs": 2, "temperature": 1.5,
    "async_batches": 1, "importance_cap": 2.0, "kl_coef": 0.01,
    "optimizer.warmup_steps": 1.0, "optimizer.learning_rate": 1e-4,
    "eval_problems": HELD_OUT, "eval_samples": TRIES, "eval_every": 3,
    "eval_temperature": 1e-3, "checkpoint_every": 2, "export_dtype": "bfloat16",
    "loggers": (), "turns.max_observations": 2, "step_rule": "lines",
    "search.prompt": "plain", "search.topk": 2, "search.temperature": 0.31,
    "search.max_new_tokens": 90, "teacher.prompt": "one_to_ten_reference",
    "teacher.score_rule": "sample", "teacher.score_temperature": 0.41,
    "teacher.temperature": 0.51, "teacher.max_new_tokens": 75, "threshold": 6,
}  # fmt: skip


def find(text: str, seed) -> str:
    """Two documents and one too many, which differ with the query."""
    return "".join(f"Doc {n}(Title: {text[:9]}) Nothing is known.\n" for n in (1, 2, 3))


def reply(text: str, seed) -> str:
    """A turn of the teacher's: it searches once."""
    if "<information>" in text:
        return "<answer> nobody </answer>"
    return "<search> teacher's query </search>"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(config, bodies the engine got, bodies the teacher got, the error that ended the
    run or None)."""
    folder = tmp_path_factory.mktemp("run")
    config = flags.load_file("configs/quickstart_search.py")
    with (
        TeacherServer(write=find) as engine,
        TeacherServer(write=reply, without=("logprobs",)) as teacher,
        config.unlocked(),
    ):
        config.update_from_flattened_dict(KNOBS)
        config.run_dir = str(folder)
        config.search.url, config.teacher.url = engine.url, teacher.url
        try:
            train.main(config)
        except (
            Exception
        ) as error:  # a test tells of it, once it has seen what was asked
            return config, engine.bodies, teacher.bodies, error
    return config, engine.bodies, teacher.bodies, None


@pytest.fixture
def run(recorded):
    """(config, bodies the engine got, bodies the teacher got) of a run that ended
    well."""
    *parts, error = recorded
    assert error is None, f"the run ended with {type(error).__name__}: {error}"
    return parts


def text_of(body) -> str:
    if "prompt" in body:
        return body["prompt"]
    return "\n".join(message["content"] for message in body["messages"])


def is_probe(body) -> bool:
    """Whether it is one of the questions that find out what a server can do."""
    said = ("1 + 1", "Write a yes", "Write the word yes", "Count to nine")
    return any(x in text_of(body) for x in said)


def asked(bodies) -> list[dict]:
    return [body for body in bodies if not is_probe(body)]


def written(config) -> list[dict]:
    """The samples of the run."""
    with open(f"{config.run_dir}/samples.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def queries(engine, *, told: bool) -> list[str]:
    """What the engine was asked, where it was `told` the answer or not."""
    texts = [text for text in map(text_of, engine) if ("Answer: " in text) == told]
    return [re.search(r"Query: (.*)", text)[1] for text in texts]


@pytest.mark.slow
def test_no_gold_answer_of_a_held_out_problem_is_shown_to_anybody(recorded):
    """However the run ends."""
    config, engine, teacher, _ = recorded
    tokenizer = load_tokenizer(find_model(config.model, "student"))
    held_out = make_task(config, tokenizer).held_out(HELD_OUT)
    leaks = [
        (name, gold, text_of(body))
        for name, bodies in (("engine", engine), ("teacher", teacher))
        for body in asked(bodies)
        for problem in held_out
        for gold in problem.golds
        if problem.question in text_of(body) and gold in text_of(body)
    ]
    assert leaks == []


@pytest.mark.slow
def test_gold_answers_are_shown_in_training_alone(run):
    config, engine, teacher = run[0], asked(run[1]), asked(run[2])
    golds = {row["question"]: row["answer"] for row in written(config)}
    told = r"Question: (.*)\nAnswer: (.*)\nQuery: "
    shown = {found.groups() for body in engine
             if (found := re.match(told, text_of(body)))}  # fmt: skip
    assert shown
    assert shown <= golds.items()
    judged = r"<problem>\n(.*)\n</problem>[^<]*<reference>\n(.*)\n</reference>"
    shown = {found.groups() for body in teacher
             if (found := re.match(judged, text_of(body)))}  # fmt: skip
    assert shown == set(golds.items())
    # The student's and the teacher's accuracy on what is held out.
    assert queries(engine, told=False).count("teacher's query") == HELD_OUT
    assert set(queries(engine, told=False)) > {"teacher's query"}
    tokenizer = load_tokenizer(find_model(config.model, "student"))
    for problem in make_task(config, tokenizer).held_out(HELD_OUT):
        assert problem.question not in golds
        texts = [t for t in map(text_of, engine + teacher) if problem.question in t]
        assert len(texts) == 2  # two turns of the teacher
        assert not any(gold in text for text in texts for gold in problem.golds)


@pytest.mark.slow
def test_training_and_evaluation_count_their_own_searches(run):
    """The teacher's accuracy counts none."""
    rows, engine = read_metrics(run[0].run_dir), asked(run[1])
    held_out = len(queries(engine, told=False)) - HELD_OUT
    for name in ("search_queries", "search_model_requests"):
        trained = [row[name] for row in rows if name in row]
        assert len(trained) == STEPS
        assert sum(trained) == len(queries(engine, told=True))
        evaluated = [row[f"eval_{name}"] for row in rows if f"eval_{name}" in row]
        assert len(evaluated) == 3
        assert sum(evaluated) == held_out
    assert all("eval_observations_cut" in row for row in rows if "eval_em" in row)


@pytest.mark.slow
def test_each_server_is_asked_with_its_own_knobs(run):
    engine, teacher = asked(run[1]), asked(run[2])
    assert {(b["temperature"], b["max_tokens"]) for b in engine} == {(0.31, 90)}
    assert all(re.search(r"^2 \w+ documents", b["prompt"], re.M) for b in engine)
    judged = [b for b in teacher if "<reference>" in text_of(b)]
    rest = [b for b in teacher if "<reference>" not in text_of(b)]
    assert {b["temperature"] for b in judged} == {0.41}
    assert all("from 1 to 10" in text_of(body) for body in judged)
    assert {(b["temperature"], b["max_tokens"]) for b in rest} == {(0.51, 75)}


@pytest.mark.slow
def test_training_and_evaluation_are_sampled_at_their_own_temperatures(run):
    """Nearly greedy attempts at a problem ask the engine the same; those of training,
    at a temperature of 1.5, do not."""
    engine = asked(run[1])
    held_out, training = (
        [query for query in queries(engine, told=told) if query != "teacher's query"]
        for told in (False, True)
    )
    assert len(held_out) >= 3 * HELD_OUT * TRIES
    assert len(training) >= STEPS * PROBLEMS
    assert len(set(held_out)) < len(held_out) / 5
    assert len(set(training)) > len(training) / 2


@pytest.mark.slow
def test_scores_decide_by_the_threshold(run):
    """Of a conversation whose every turn reached it, nothing is replaced."""
    rows = written(run[0])
    assert len(rows) == STEPS * PROBLEMS * SAMPLES
    for row in rows:
        # Levels count from 0, and this prompt's labels from 1, as its threshold does.
        least = min(score["value"] + 1 for score in row["student"]["step_scores"])
        assert row["accepted"] == (least >= KNOBS["threshold"])
        assert not (row["accepted"] and row["replaced"])


@pytest.mark.slow
def test_a_run_leaves_what_its_knobs_say(run):
    config = run[0]
    rows = read_metrics(config.run_dir)
    assert [row["step"] for row in rows if "eval_accuracy" in row] == [0, 3, STEPS]
    assert [row["step"] for row in rows if "teacher_accuracy" in row] == [0]
    assert [row["staleness"] for row in rows[:STEPS]] == [0, 1, 1, 1]
    # Warm after the first of four rollout batches, of four optimizer steps each.
    np.testing.assert_allclose(
        [row["learning_rate"] for row in rows[:STEPS]],
        1e-4 * np.array([1, 1 - 3 / 12, 1 - 7 / 12, 1 - 11 / 12]), rtol=1e-4,
    )  # fmt: skip
    steps = {int(path.name) for path in Path(config.run_dir, "checkpoints").iterdir()}
    assert steps == {2 * 4, STEPS * 4}  # and not the last two
    weights = Path(config.run_dir, "export", "model.safetensors")
    with safe_open(weights, "np") as file:
        dtypes = {file.get_slice(name).get_dtype() for name in list(file.keys())}
    assert dtypes == {"BF16"}

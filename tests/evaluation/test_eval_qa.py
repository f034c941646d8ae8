"""Questions evaluated end to end: all counted, all measured, and no gold given away."""

import functools

import pytest
from fakes import FakeTeacher
from search_fakes import (
    CORRECTION,
    RULES,
    TOKENIZER,
    Student,
    byte_tokenizer,
    decode,
    encode,
    problem,
)
from search_fakes import Engine as ScriptedEngine
from search_fakes import dialogue as dialogue_with
from teacher_server import TeacherServer

from ovd_jax.cli import flags
from ovd_jax.evaluation.attempts import Direct, evaluate
from ovd_jax.evaluation.rejection import (
    BlindConversationCollector,
    RejectionAtTestTime,
    generator,
)
from ovd_jax.evaluation.served_student import ServedStudent
from ovd_jax.tasks.qa import QATask
from ovd_jax.wiring.env import make_dialogue, make_env, make_pool
from ovd_jax.wiring.servers import make_transport

GOLDS = ("Zanzibar-gold", "Quux-gold")
PROBLEMS = [problem(f"Where is thing {n}?", f"{GOLDS[0]} {n}", GOLDS[1])
            for n in range(6)]  # fmt: skip


def student(text, sample, rng):
    """Searches for what no gold has, then answers."""
    if "Doc 1(" in text:
        return "<think> found </think>\n<answer> near Oslo </answer>"
    return "<think> look </think>\n<search> where things are </search>"


def stream_of(write):
    def stream(prompts, *, seed, samples=1, limits=None, draws=None, environment):
        found = Student(write)(
            prompts, seed=seed, samples=samples, limits=limits, draws=draws,
            environment=environment,
        )  # fmt: skip
        yield from enumerate(row for group in found for row in group)

    return stream


def answer(text, seed):
    return "Doc 1(Title: Norway) Oslo is there.\nDoc 2(Title: x) y"


@pytest.fixture
def task(tmp_path):
    return QATask(data="", seed=0, prompt="search", chat=False, tokenizer=TOKENIZER)


@pytest.fixture
def config():
    config = flags.load_file("configs/eval_qa.py")
    config.prompt_template = "plain"
    config.search.backend = "simulated"
    config.turns.total_tokens = 600
    config.turns.observation_tokens = 200
    return config


def solve(config, task, server, solver):
    """Evaluates with an engine at `server`; (results, bodies of its requests)."""
    config.search.url = server.url
    pool = make_pool(config, training=False)
    env = make_env(config, task, TOKENIZER)
    dialogue = make_dialogue(config, env, TOKENIZER, pool, training=False)
    try:
        results = evaluate(
            PROBLEMS, task=task, solver=solver(dialogue), tokenizer=TOKENIZER,
            samples=1, seed=0,
        )  # fmt: skip
    finally:
        pool.close()
    return results, server.bodies


def direct(dialogue):
    return Direct(
        functools.partial(dialogue.generate, stream_of(student)),
        tokenizer=TOKENIZER, rows=4, identity={}, greedy=True,
    )  # fmt: skip


def rejecting(teacher):
    def make(dialogue):
        return RejectionAtTestTime(
            stream_of(student), task=QATask(data="", seed=0, chat=False),
            make_teacher=lambda: teacher, tokenizer=TOKENIZER, threshold=7,
            max_replaced_steps=2, max_new_tokens=120, rows=4, identity={},
            make_collector=functools.partial(
                BlindConversationCollector, dialogue=dialogue
            ),
        )  # fmt: skip

    return make


class Scorer(FakeTeacher):
    def metrics(self):
        return {}


def hidden_in(requests) -> list[str]:
    told = str(requests)
    secrets = (*GOLDS, *(p.question for p in PROBLEMS))
    return [secret for secret in secrets if secret in told]


def test_every_item_counts_and_has_all_measures(config, task):
    with TeacherServer(write=answer) as server:
        results, _ = solve(config, task, server, direct)
    assert [result.problem.id for result in results] == [p.id for p in PROBLEMS]
    for result in results:
        (grade,) = result.grades
        assert grade.extracted == "near Oslo"
        assert grade.metrics == {
            "em": 0.0, "cover_em": 0.0, "f1": 0.0, "recall": 0.0, "searches": 1.0,
            "invalid_rate": 0.0,
        }  # fmt: skip


def test_no_request_of_an_evaluation_holds_a_gold_answer_or_the_question(config, task):
    with TeacherServer(write=answer) as server:
        _, bodies = solve(config, task, server, direct)
        assert len(bodies) >= len(PROBLEMS)
        assert "where things are" in str(bodies)
        assert hidden_in(bodies) == []


def test_no_request_of_an_evaluation_with_a_teacher_holds_one_either(config, task):
    teacher = Scorer(
        score=lambda request, rng: 0 if "look" in request.text else 9,
        demonstrate=lambda request, rng: (
            "<think> better </think>\n<search> a better query </search>"
        ),
    )
    with TeacherServer(write=answer) as server:
        results, bodies = solve(config, task, server, rejecting(teacher))
        assert "a better query" in str(bodies)
        assert hidden_in(bodies) == []
    asked = str(teacher.scored) + str(teacher.demonstrated)
    assert not any(gold in asked for gold in GOLDS)
    assert PROBLEMS[0].question in asked  # the teacher judges, the engine does not
    assert len(results) == len(PROBLEMS)
    assert all("a better query" in r.attempts[0].text for r in results)


def test_in_training_the_simulator_is_told(config, task):
    config.search.url = ""
    with TeacherServer(write=answer) as server:
        config.search.url = server.url
        pool = make_pool(config, training=True)
        env = make_env(config, task, TOKENIZER)
        dialogue = make_dialogue(config, env, TOKENIZER, pool, training=True)
        prompts = [TOKENIZER(task.prompt(p))["input_ids"] for p in PROBLEMS]
        dialogue.generate(
            lambda *args, **kwargs: list(stream_of(student)(*args, **kwargs)),
            prompts, seed=0, problems=PROBLEMS,
        )  # fmt: skip
        pool.close()
        told = str(server.bodies)
    assert all(p.question in told and p.answer in told for p in PROBLEMS)


def test_an_answer_after_an_invalid_turn_is_the_one_that_counts(config, task):
    """With the correction that is the default."""

    def wavers(text, sample, rng):
        said = "tags. Try again." in text
        return f"<answer> {GOLDS[1]} </answer>" if said else "<think> hm </think>"

    def solver(dialogue):
        return Direct(
            functools.partial(dialogue.generate, stream_of(wavers)),
            tokenizer=TOKENIZER, rows=4, identity={}, greedy=True,
        )  # fmt: skip

    with TeacherServer(write=answer) as server:
        results, _ = solve(config, task, server, solver)
    for result in results:
        (grade,) = result.grades
        assert grade.extracted == GOLDS[1]
        assert grade.metrics["em"] == 1.0
        assert grade.metrics["searches"] == 0.0
        assert grade.metrics["invalid_rate"] == 0.5


def cut_as_servers_do(write, *, with_stop):
    """What a server answers that ends a text at its stop string."""

    def answer(text, seed):
        said = write(text, 0, None)
        for stop in STOPS:
            head, found, _ = said.partition(stop)
            said = head + found * with_stop if found else said
        return said

    return answer


STOPS = ("</search>", "</answer>")


@pytest.mark.parametrize("kind", ["tokens", "text", "plain text"])
def test_a_served_student_searches_as_one_in_this_process(kind):
    """Whether the server takes token ids or only text, and shows stop strings or not:
    turns, documents and answers are equal."""
    strict = kind == "plain text"
    write = cut_as_servers_do(student, with_stop=not strict)
    server = TeacherServer(
        write=write, strict=strict, decode=decode if kind == "tokens" else None
    )
    prompts = [encode(f"Q: {p.question}\n") for p in PROBLEMS]
    engine, expected = ScriptedEngine(), dialogue_with()
    with server:
        served = served_student(server.url)
        found = dict(dialogue_with(engine).generate(served.stream, prompts, seed=0))
        sent = [body["prompt"] for body in server.bodies]
    ours = expected.generate(Student(student), prompts, seed=0)
    assert served._dialect == kind
    assert len(engine.queries) == len(PROBLEMS)
    assert {query.text for query in engine.queries} == {"where things are"}
    for row, (own,) in enumerate(ours):
        theirs = found[row]
        assert (theirs.tokens, theirs.observed) == (own.tokens, own.observed)
        assert theirs.stopped
        said = decode(theirs.tokens)
        assert "Doc 1(" in said
        assert said.endswith("</answer>")
    # The second request of a row goes on from the first one's tokens and what was read.
    longest = max(sent, key=len)
    assert "Doc 1(" in (longest if isinstance(longest, str) else decode(longest))


def test_a_served_student_keeps_to_its_budgets():
    """Of a turn and of all of it; a turn that was cut is no search."""
    babble = TeacherServer(write=lambda text, seed: "<search> x" * 60, decode=decode)
    engine, prompts = ScriptedEngine(), [encode("Q: who?\n")] * 3
    with babble as server:
        served = served_student(server.url)
        talk = dialogue_with(engine)
        found = dict(talk.generate(served.stream, prompts, seed=0))
        asked = [body["max_tokens"] for body in server.bodies[1:]]
        seeds = {body["seed"] for body in server.bodies[1:]}
    assert engine.queries == []
    assert max(asked) <= 120
    assert len(seeds) == len(asked) == 3 * (RULES.max_observations + 1)
    for completion in found.values():
        assert len(completion.tokens) <= RULES.total_tokens
        assert not completion.stopped
        text = decode(completion.tokens)
        assert text.count(CORRECTION) == RULES.max_observations


def served_student(url):
    config = flags.load_file("configs/eval_qa.py")
    config.engine = url
    config.teacher.retries = 1
    transport = make_transport(url, config.teacher, name="")
    return ServedStudent(
        transport, tokenizer=TOKENIZER, max_new_tokens=120, temperature=0.0,
        stop_strings=STOPS,
    )  # fmt: skip


def test_a_refiner_draws_by_prompt_alone():
    asked = []

    def stream(prompts, *, seed, samples, limits, draws):
        asked.extend(zip(map(decode, prompts), draws, strict=True))
        yield from enumerate(range(len(prompts) * samples))

    generate = generator(stream)
    generate([[65], [66]], seed=1)
    generate([[66]], seed=1, draws=[[0]])
    assert asked[1] == asked[2]
    assert asked[0][1] != asked[1][1]


@pytest.mark.parametrize("method", ["direct", "cot", "rag", "ra_agent", "search_o1"])
def test_every_prompted_method_is_a_config(method):
    config = flags.load_file(f"configs/eval_qa.py:{method}")
    task = QATask(
        data="", seed=0, prompt=config.qa.prompt, chat=False,
        tokenizer=byte_tokenizer(), search=object(),
    )  # fmt: skip
    assert ("</search>" in task.stop_strings) == bool(config.turns.max_observations)
    assert config.turns.refine == (method == "search_o1")


def test_an_unknown_method_is_refused():
    with pytest.raises(flags.UsageError, match="search_o1"):
        flags.load_file("configs/eval_qa.py:nonsense")

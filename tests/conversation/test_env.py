"""Any environment: what the rollouts do for it, whatever it answers."""

import threading

import fakes
import numpy as np
import pytest
import search_fakes
from env_fakes import (
    CALL,
    SUM,
    SlowTool,
    Sums,
    Tool,
    calculator,
    collect,
    converse,
    dialogue,
    problem,
)
from search_fakes import TOKENIZER, Student, decode, encode, in_turns, packed, read_by

from ovd_jax.conversation.metrics import conversation_metrics
from ovd_jax.evaluation.attempts import evaluate
from ovd_jax.evaluation.conversing import Conversing
from ovd_jax.evaluation.rejection import BlindConversationCollector, RejectionAtTestTime
from ovd_jax.rollout.buffer import RolloutBuffer


def test_a_tools_answer_is_read_and_the_student_goes_on():
    write = in_turns("I add. " + SUM.format("3+4"), "It is 7.")
    (row,) = converse(calculator(), write)
    said = "I add. " + SUM.format("3+4") + "\n<result>7</result>\nIt is 7."
    assert decode(row.tokens) == said
    assert read_by(row) == "\n<result>7</result>\n"


def test_a_student_that_uses_no_tool_has_one_turn():
    (row,) = converse(calculator(), in_turns("It is 7."))
    assert decode(row.tokens) == "It is 7."
    assert not any(row.observed)
    group = collect(calculator(), in_turns("It is 7."))
    assert [rollout.reward_before for rollout in group.rollouts] == [1.0, 1.0]


def test_a_mistake_is_answered_and_counts_as_a_try():
    (row,) = converse(calculator(), in_turns(SUM.format("1/0"), SUM.format("x"), "?"))
    assert "<result>error: division by zero</result>" in read_by(row)
    assert read_by(row).count("error: ") == 2


# Budgets


@pytest.mark.parametrize("most", [1, 2, 5])
def test_after_the_last_observation_one_turn_is_left(most):
    (row,) = converse(
        calculator(), in_turns(SUM.format("1+1")),
        rules={"max_observations": most, "total_tokens": 4000},
    )  # fmt: skip
    assert read_by(row).count("<result>") == most
    assert decode(row.tokens).count(SUM.format("1+1")) == most + 1


@pytest.mark.parametrize("size", [0, 1, 150, 199, 200, 10**6])
@pytest.mark.parametrize("limit", [100, 200, 600])
def test_an_observation_keeps_to_its_budget_and_to_that_of_all_turns(size, limit):
    env = Tool(lambda query: "x" * size)
    talk = dialogue(env)
    (group,) = talk.generate(
        Student(in_turns(CALL.format("a"), "end")), [encode("Q\n")], seed=0,
        problems=[problem()], limits=[limit],
    )  # fmt: skip
    read = read_by(group[0])
    assert len(group[0].tokens) <= limit
    assert len(encode(read)) <= 200
    assert read.startswith("\n<out>")
    assert read.endswith("</out>\n")
    whole = f"\n<out>{'x' * size}</out>\n"
    fits = len(whole) <= min(200, limit - len(CALL.format("a")) - 1)
    assert (read == whole) == fits
    assert talk.metrics()["observations_cut"] == (not fits)


def test_where_there_is_no_room_for_an_answer_the_conversation_ends():
    asked = []
    env = Tool(lambda query: asked.append(query) or "x")
    turn = CALL.format("a")
    talk = dialogue(env)
    for left in (talk.least_room - 1, talk.least_room):
        (row,) = converse(env, in_turns(turn, "y"), limits=[len(turn) + left])
        assert bool(any(row.observed)) == (left == talk.least_room)


# What is trained on


def test_what_was_read_has_no_weight_and_all_else_has():
    def write(text, sample, rng):
        turns = (SUM.format(f"3+{sample}"), "It is 7." if sample else "No.")
        return turns[min(text.count("</result>"), 1)]

    group = collect(calculator(), write, samples=4)
    batch = packed(group)
    found = 0
    for k, segments_Y in enumerate(batch.segments_BY):
        for segment in set(segments_Y.tolist()) - {-1}:
            here = segments_Y == segment
            tokens = batch.tokens_BY[k][here].tolist()
            (own, *_) = [r for r in group.rollouts if list(r.final.tokens) == tokens]
            read = np.array(own.final.observed)
            np.testing.assert_array_equal(batch.weights_BY[k][here], 1.0 - read)
            assert "<result>" in decode(np.array(tokens)[read])
            found += 1
    assert found == 4


@pytest.mark.parametrize("mask_invalid", [False, True])
def test_conversations_with_an_invalid_turn_can_be_left_out_of_the_loss(mask_invalid):
    write = in_turns(SUM.format("1/0"), "It is 7.")
    group = collect(calculator(), write, rules={"mask_invalid": mask_invalid})
    assert [r.final.trained for r in group.rollouts] == [not mask_invalid] * 2


# What is left behind


def test_samples_and_metrics_show_the_conversations():
    def write(text, sample, rng):
        turns = (SUM.format("3+4"), SUM.format("x"), "7")
        return turns[text.count("</result>")] if sample else "7"

    group = collect(calculator(), write)
    _, row = RolloutBuffer((group,), [[[0.0], [0.0] * 3]], 10).rows()
    first, second, last = row["student"]["steps"]
    assert first == SUM.format("3+4") + "\n<result>7</result>\n"
    assert second.startswith(SUM.format("x") + "\n<result>error: ")
    assert last == "7"
    assert len(row["student"]["step_scores"]) == 3
    assert conversation_metrics([group], dialogue(calculator())) == {
        "tool_calls": 0.5, "turns": 2.0, "invalid": 0.5, "invalid_rate": 0.25,
        "observed_tokens": sum(group.rollouts[1].student.observed) / 2,
    }  # fmt: skip


def stream_of(write):
    def stream(prompts, **options):
        rows = Student(write)(prompts, **{"samples": 1, "limits": None} | options)
        yield from enumerate(row for group in rows for row in group)

    return stream


def test_held_out_attempts_are_graded_by_what_the_student_wrote():
    """A tool that shows the answer earns nothing."""
    seen = []
    env = SlowTool(lambda query, conversation: seen.append(conversation) or "7")
    talk = dialogue(env)
    solvers = {
        "alone": Conversing(
            stream_of(in_turns(CALL.format("a"), "No.")), dialogue=talk,
            tokenizer=TOKENIZER, rows=4, identity={}, greedy=True,
        ),
        "rejecting": RejectionAtTestTime(
            stream_of(in_turns(CALL.format("a"), "No.")), task=Sums(),
            make_teacher=Scorer, tokenizer=TOKENIZER, threshold=7,
            max_replaced_steps=2, max_new_tokens=120, rows=4, identity={},
            make_collector=lambda **x: BlindConversationCollector(dialogue=talk, **x),
        ),
    }  # fmt: skip
    for solver in solvers.values():
        (result,) = evaluate(
            [problem()], task=Sums(), solver=solver, tokenizer=TOKENIZER, samples=1,
            seed=0,
        )  # fmt: skip
        assert result.attempts[0].text == CALL.format("a") + "\n<out>7</out>\nNo."
        assert result.rewards == (0.0,)
        assert {conversation.problem.answer for conversation in seen} == {""}


class Scorer(fakes.FakeTeacher):
    def __init__(self):
        super().__init__(lambda request, rng: 9)

    def metrics(self):
        return {}


# Slow tools


def test_calls_run_beside_one_another_and_know_their_conversation():
    together = threading.Barrier(2, timeout=10)
    seen = {}

    def answer(query, conversation):
        if query == "one":
            together.wait()
        seen.setdefault(conversation.problem.question, []).append(conversation)
        return f"{query} for {conversation.problem.question}"

    problems = [problem("who"), problem("where")]
    write = in_turns(CALL.format("one"), CALL.format("two"), "end")
    rows = converse(SlowTool(answer), write, problems=problems)
    for row, asked in zip(rows, problems, strict=True):
        first, second = seen[asked.question]
        assert (first.turns, first.observations) == ((CALL.format("one"),), ())
        assert second.turns == (CALL.format("one"), CALL.format("two"))
        assert second.observations == (f"\n<out>one for {asked.question}</out>\n",)
        assert f"two for {asked.question}" in read_by(row)
    assert len({x.seed for found in seen.values() for x in found}) == 4


def test_a_seed_depends_on_neither_order_nor_neighbours():
    def seeds(names):
        seen = {}
        env = SlowTool(lambda query, talk: seen.update({query: talk.seed}) or query)
        problems = [problem(name) for name in names]
        converse(env, lambda text, *_: CALL.format(text[3:]), problems=problems)
        return {query: seed for query, seed in seen.items() if "<" not in query}

    assert seeds("b").items() <= seeds("abc").items()
    assert seeds("ca").items() <= seeds("abc").items()


def test_what_calls_bring_can_be_condensed_by_the_student():
    def refine(findings, *, seed):
        (finding,) = findings
        assert finding.query == "who"
        assert finding.written == CALL.format("who")
        return [(search_fakes.Document("", f"short {finding.documents[0].text}"),)]

    env = SlowTool(lambda query, conversation: "long")
    talk = dialogue(env, refine=refine)
    (group,) = talk.generate(
        Student(in_turns(CALL.format("who"), "end")), [encode("Q\n")], seed=0,
        problems=[problem()],
    )  # fmt: skip
    assert read_by(group[0]) == "\n<out>short long</out>\n"

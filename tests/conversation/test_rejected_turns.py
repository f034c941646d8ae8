"""Turns of a search agent that the teacher rejects and rewrites, and the loss."""

import fakes
import numpy as np
import pytest
from search_fakes import (
    ANSWER,
    SEARCH,
    Engine,
    Student,
    collect,
    collector,
    dialogue,
    in_turns,
    packed,
    picked,
    problem,
    read_by,
    score_bad_turns,
)

from ovd_jax.conversation.collect import solve
from ovd_jax.conversation.metrics import conversation_metrics


def test_each_turn_is_scored_with_what_was_read_before_it_and_without_its_own():
    teacher = fakes.FakeTeacher(lambda request, rng: 9)
    write = in_turns(SEARCH.format("who"), ANSWER.format("Ada Byron"))
    group = collect(teacher, write, samples=1)
    first, second = teacher.scored[0]
    assert (first.previous, first.text) == ("", SEARCH.format("who"))
    assert second.text == ANSWER.format("Ada Byron")
    assert second.previous.startswith(first.text + "\n<information>")
    assert group.rollouts[0].accepted
    assert group.rollouts[0].reward_before == 1.0


def test_a_rejected_query_is_rewritten_looked_up_and_gone_on_from():
    engine = Engine()
    better = SEARCH.format("good")
    teacher = fakes.FakeTeacher(
        score_bad_turns, lambda request, rng: better + "\n<information>made up"
    )
    write = in_turns(SEARCH.format("bad"), ANSWER.format("Ada Byron"))
    group = collect(teacher, write, dialogue(engine), samples=2)
    for rollout in group.rollouts:
        final = rollout.final
        found = "\n<information>\nDoc 1(Title: Title) about good\n</information>\n"
        assert final.text == better + found + ANSWER.format("Ada Byron")
        assert final.turns == (better, ANSWER.format("Ada Byron"))
        assert picked(final.tokens, final.from_teacher) == better
        assert read_by(final) == found
        assert not rollout.accepted
        assert rollout.reward_after == 1.0
    texts = [query.text for query in engine.queries]
    assert sorted(texts) == ["bad", "bad", "good", "good"]
    assert {request.prefix for request in teacher.demonstrated[0]} == {""}


def test_a_rejected_answer_is_replaced_and_what_was_read_before_it_stays():
    teacher = fakes.FakeTeacher(
        score_bad_turns, lambda request, rng: ANSWER.format("Ada Byron")
    )
    write = in_turns(SEARCH.format("who"), ANSWER.format("bad"))
    group = collect(teacher, write, samples=1)
    (rollout,) = group.rollouts
    cut = rollout.student.step_ends[0]
    assert rollout.final.tokens[:cut] == rollout.student.tokens[:cut]
    assert rollout.final.observed[:cut] == rollout.student.observed[:cut]
    assert any(rollout.final.observed[:cut])
    assert rollout.final.turns[-1] == ANSWER.format("Ada Byron")
    assert rollout.final.stopped
    assert rollout.reward_after == 1.0
    assert teacher.demonstrated[0][0].prefix == rollout.student.step_texts[0]


def test_a_teachers_turn_that_does_nothing_is_thrown_away():
    teacher = fakes.FakeTeacher(score_bad_turns, lambda request, rng: "no idea")
    write = in_turns(ANSWER.format("bad"))
    (rollout,) = collect(teacher, write, samples=1).rollouts
    assert rollout.final == rollout.student
    assert rollout.failed_demonstrations == 3


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("searches", [1, 3, 6])
def test_where_all_are_rejected_every_turn_is_the_teachers(searches, rounds):
    def agent(request, rng):
        done = request.prefix.count("<information>") == searches
        return ANSWER.format("Ada Byron") if done else SEARCH.format("good")

    teacher = fakes.FakeTeacher(score_bad_turns, agent)
    talk = dialogue(max_observations=searches, total_tokens=4000)
    (rollout,) = collect(
        teacher, in_turns(SEARCH.format("bad")), talk,
        samples=1, threshold=10, max_replaced_steps=rounds,
    ).rollouts  # fmt: skip
    final = rollout.final
    assert all(
        t or r for t, r in zip(final.from_teacher, final.is_observation, strict=True)
    )
    assert len(final.turns) == searches + 1
    assert rollout.reward_after == 1.0
    assert teacher.scored == []
    assert len(teacher.demonstrated) == searches + 1


def test_the_golds_of_its_own_question_go_with_a_rewritten_query():
    engine = Engine()
    teacher = fakes.FakeTeacher(
        score_bad_turns, lambda request, rng: SEARCH.format(request.question)
    )
    made = collector(teacher, dialogue(engine, with_golds=True))
    problems = [problem("Who?", "Ada"), problem("Where?", "London")]
    write = in_turns(SEARCH.format("bad"), ANSWER.format("x"))
    made.collect(problems, Student(write), seed=3)
    pairs = {(q.text, q.question, q.answers) for q in engine.queries}
    assert pairs == {
        ("bad", "Who?", ("Ada",)), ("Who?", "Who?", ("Ada",)),
        ("bad", "Where?", ("London",)), ("Where?", "Where?", ("London",)),
    }  # fmt: skip


def test_a_teacher_alone_answers_turn_by_turn_without_golds():
    engine = Engine()

    def write(request, rng):
        if "<information>" in request.prefix or request.question == "Where?":
            return ANSWER.format("Ada Byron")
        return SEARCH.format(request.question) if request.question == "Who?" else "hm"

    teacher = fakes.FakeTeacher(demonstrate=write)
    problems = [problem("Who?"), problem("Where?"), problem("Why?")]
    who, where, why = solve(teacher, dialogue(engine), problems, seed=0)
    assert who.startswith(SEARCH.format("Who?") + "\n<information>")
    assert who.endswith(ANSWER.format("Ada Byron"))
    assert (where, why) == (ANSWER.format("Ada Byron"), "")
    assert [(q.text, q.question) for q in engine.queries] == [("Who?", "")]


def test_whole_solutions_of_a_teacher_are_refused():
    with pytest.raises(ValueError, match="set replacement to step"):
        collector(fakes.FakeTeacher(), dialogue(), replacement="suffix")
    collector(fakes.FakeTeacher(), dialogue(), replacement="suffix", threshold=0)


# What is trained on.


def varied(text, sample, rng):
    if "<information>" in text:
        return ANSWER.format("Ada Byron" if sample else "Ada")
    return SEARCH.format("who" * sample + "x") if sample < 3 else ANSWER.format("?")


def test_what_was_read_has_no_weight_and_all_else_has():
    group = collect(fakes.FakeTeacher(lambda r, g: 9), varied, samples=4)
    batch = packed(group)
    for rollout in group.rollouts:
        tokens = np.array(rollout.final.tokens)
        segments = [
            (k, segment)
            for k in range(len(batch.tokens_BY))
            for segment in set(batch.segments_BY[k].tolist()) - {-1}
            if np.array_equal(
                batch.tokens_BY[k][batch.segments_BY[k] == segment], tokens
            )
        ]
        assert segments
        k, segment = segments[0]
        weights = batch.weights_BY[k][batch.segments_BY[k] == segment]
        read = np.array(rollout.final.is_observation)
        np.testing.assert_array_equal(weights, 1.0 - read)
    assert any(any(r.final.observed) for r in group.rollouts)


@pytest.mark.parametrize("mask_invalid", [False, True])
def test_conversations_with_invalid_turns_can_be_left_out_of_the_loss(mask_invalid):
    def write(text, sample, rng):
        if sample == 0 and "<information>" not in text:
            return "hm"
        return ANSWER.format("Ada Byron" if sample else "x")

    talk = dialogue(mask_invalid=mask_invalid)
    group = collect(fakes.FakeTeacher(lambda r, g: 9), write, talk, samples=2)
    invalid, fine = group.rollouts
    assert invalid.final.trained is not mask_invalid
    assert fine.final.trained
    weights = packed(group).weights_BY
    written = sum(r.final.written_tokens for r in group.rollouts)
    lost = invalid.final.written_tokens if mask_invalid else 0
    assert weights.sum() == written - lost


def test_metrics_are_those_of_the_students_own_conversations():
    teacher = fakes.FakeTeacher(
        score_bad_turns, lambda request, rng: ANSWER.format("Ada Byron")
    )

    def write(text, sample, rng):
        if text.count("<information>") == 0:
            return SEARCH.format("Ada Byron") if sample else "bad"
        return ANSWER.format("Ada Byron of Ockham")

    group = collect(teacher, write, samples=2)
    assert conversation_metrics([group], dialogue()) == {
        "em": 0.0,
        "f1": pytest.approx(2 * 2 / (2 + 4)),
        "retrieval_recall": 0.5,
        "searches": 0.5,
        "turns": 2.0,
        "invalid": 0.5,
        "invalid_rate": 0.25,
        "observed_tokens": np.mean(
            [sum(rollout.student.observed) for rollout in group.rollouts]
        ),
    }

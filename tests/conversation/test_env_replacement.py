"""Rejected turns in any environment: the teacher rewrites them and `env` answers."""

import fakes
import pytest
from env_fakes import (
    CALL,
    SUM,
    SlowTool,
    calculator,
    collect,
    collector,
    dialogue,
    problem,
)
from search_fakes import EOS, decode, in_turns, read_by, score_bad_turns

from ovd_jax.conversation.collect import solve
from ovd_jax.errors import UserError


def test_each_turn_is_scored_with_what_was_read_before_it():
    teacher = fakes.FakeTeacher(lambda request, rng: 9)
    collect(calculator(), in_turns(SUM.format("3+4"), "It is 7."), teacher, samples=1)
    first, second = teacher.scored[0]
    assert (first.previous, first.text) == ("", SUM.format("3+4"))
    assert second.text == "It is 7."
    assert second.previous == first.text + "\n<result>7</result>\n"


@pytest.mark.parametrize("left_out", [False, True])
def test_a_rejected_call_is_rewritten_answered_and_gone_on_from(left_out):
    """Also where a server leaves the string out at which it stops."""
    better = "Better: " + SUM.format("3+4")
    said = better.removesuffix("</calculator>") if left_out else better + " made up"
    teacher = fakes.FakeTeacher(score_bad_turns, lambda request, rng: said)
    write = in_turns("bad " + SUM.format("3+5"), "It is 7.")
    for rollout in collect(calculator(), write, teacher).rollouts:
        final = rollout.final
        assert final.text == better + "\n<result>7</result>\nIt is 7."
        taught = zip(final.tokens, final.from_teacher, strict=True)
        assert decode(token for token, own in taught if own) == better
        assert read_by(final) == "\n<result>7</result>\n"
        assert (rollout.accepted, rollout.reward_after) == (False, 1.0)


def test_a_rejected_answer_is_replaced_and_ends_with_an_end_token():
    teacher = fakes.FakeTeacher(score_bad_turns, lambda request, rng: "It is 7.")
    write = in_turns(SUM.format("3+4"), "bad 8")
    (rollout,) = collect(calculator(), write, teacher, samples=1).rollouts
    cut = rollout.student.step_ends[0]
    assert rollout.final.tokens[:cut] == rollout.student.tokens[:cut]
    assert rollout.final.turns == (SUM.format("3+4"), "It is 7.")
    assert rollout.final.tokens[-1] == EOS
    assert rollout.final.from_teacher[-1]
    assert rollout.final.stopped
    assert teacher.demonstrated[0][0].prefix == rollout.student.step_texts[0]


@pytest.mark.parametrize("said", [None, "", " ", SUM.format("1/0")])
def test_a_teachers_turn_that_does_nothing_is_thrown_away(said):
    teacher = fakes.FakeTeacher(score_bad_turns, lambda request, rng: said)
    (rollout,) = collect(calculator(), in_turns("bad"), teacher, samples=1).rollouts
    assert rollout.final == rollout.student
    assert rollout.failed_demonstrations == 3


def test_a_teacher_alone_is_answered_turn_by_turn():
    def write(request, rng):
        return "It is 7." if "<result>" in request.prefix else SUM.format("3+4")

    teacher = fakes.FakeTeacher(demonstrate=write)
    (text,) = solve(teacher, dialogue(calculator()), [problem()], seed=0)
    assert text == SUM.format("3+4") + "It is 7."  # what was read is not graded


def test_a_tool_is_not_told_the_answer_that_a_teacher_alone_is_tested_on():
    seen = []
    env = SlowTool(lambda query, talk: seen.append(talk.problem.answer) or "x")
    teacher = fakes.FakeTeacher(demonstrate=lambda *_: CALL.format("a"))
    solve(teacher, dialogue(env), [problem()], seed=0)
    assert set(seen) == {""}


def test_whole_solutions_of_a_teacher_are_refused():
    with pytest.raises(UserError, match="set replacement to step"):
        collector(fakes.FakeTeacher(), dialogue(calculator()), replacement="suffix")


def test_a_call_after_a_replaced_turn_knows_what_stays_before_it():
    seen = []

    def answer(query, conversation):
        seen.append((conversation.turns, len(conversation.observations)))
        return query

    teacher = fakes.FakeTeacher(
        score_bad_turns, lambda request, rng: CALL.format("good")
    )
    write = in_turns(CALL.format("a"), CALL.format("bad"), CALL.format("c"), "end")
    collect(SlowTool(answer), write, teacher, samples=1, rules={"max_observations": 3})
    a, bad, c, good = map(CALL.format, ("a", "bad", "c", "good"))
    assert seen == [
        ((a,), 0), ((a, bad), 1), ((a, bad, c), 2),  # the student's
        ((a, good), 1), ((a, good, c), 2),  # the teacher's turn, and on
    ]  # fmt: skip

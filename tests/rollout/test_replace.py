"""What takes a rejected trajectory's place, worked by hand token by token.

The question is ((3+4)*2)-5. Its solution has 8 + 4 + 2 tokens and an end token.
"""

import pytest
from fakes import (
    EOS,
    FakeStudent,
    FakeTeacher,
    encode,
)
from replacing import (
    FIRST,
    LAST,
    PROBLEM,
    QUESTION,
    RIGHT,
    SECOND,
    SLIP,
    collect,
    goes_on_right,
    says,
)

from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.trajectory import Group
from ovd_jax.sampling.completion import Completion
from ovd_jax.teacher.base import DemonstrationRequest

LONG = FIRST + SECOND + SECOND + SECOND + LAST


def test_only_the_rejected_trajectory_is_replaced():
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    first, second, third = collect([RIGHT, SLIP, RIGHT], teacher, samples=3)
    for untouched in (first, third):
        assert untouched.accepted
        assert untouched.final is untouched.student
        assert untouched.final_verdict is untouched.verdict
    assert (second.accepted, second.replaced) == (False, True)
    assert second.student.text == SLIP
    assert second.final.text == RIGHT
    assert (second.reward_before, second.reward_after) == (0.0, 1.0)
    assert teacher.demonstrated == [[DemonstrationRequest(QUESTION, "")]]


def test_replacing_a_trajectory_keeps_none_of_its_tokens():
    (rollout,) = collect([SLIP], FakeTeacher(demonstrate=says(RIGHT)))
    assert rollout.final.tokens == (*encode(RIGHT), EOS)
    assert rollout.final.from_teacher == (True,) * 15
    assert rollout.final.logprobs == (0.0,) * 15
    assert rollout.final.step_ends == (8, 12, 15)
    assert rollout.final.stopped
    assert rollout.final_verdict is None  # nobody asked for it


def test_a_wrong_demonstration_is_asked_for_again():
    """By another number: a teacher that keeps its answers would repeat the first."""
    teacher = FakeTeacher(demonstrate=says(SLIP, None, RIGHT))
    (rollout,) = collect([SLIP], teacher)
    asked = [[request.attempt for request in call] for call in teacher.demonstrated]
    assert asked == [[0], [1], [2]]
    assert rollout.final.text == RIGHT
    assert rollout.failed_demonstrations == 2


def test_only_those_that_failed_are_asked_for_again():
    teacher = FakeTeacher(demonstrate=says(SLIP, RIGHT))
    first, second = collect([SLIP, SLIP], teacher, samples=2)
    assert [len(call) for call in teacher.demonstrated] == [2, 1]
    assert first.failed_demonstrations == 1
    assert second.failed_demonstrations == 0
    assert first.final.text == second.final.text == RIGHT


@pytest.mark.parametrize("replacement", ["trajectory", "suffix"])
@pytest.mark.parametrize("solution", [SLIP, None])
def test_after_the_last_try_the_students_own_is_kept_and_counted(replacement, solution):
    teacher = FakeTeacher(demonstrate=says(solution))
    (rollout,) = collect(
        [SLIP], teacher, replacement=replacement, demonstration_tries=4
    )
    assert len(teacher.demonstrated) == 4
    assert rollout.failed_demonstrations == 4
    assert rollout.final is rollout.student
    assert not rollout.replaced
    assert not rollout.accepted
    assert rollout.reward_after == rollout.reward_before == 0.0


def test_other_tries_are_asked_with_other_seeds():
    seen = []
    teacher = FakeTeacher(demonstrate=lambda request, rng: seen.append(rng.random()))
    collect([SLIP], teacher)
    assert len(set(seen)) == len(seen) == 3


@pytest.mark.parametrize(("room", "fits"), [(23, True), (22, False)])
def test_a_demonstration_must_fit_with_its_end_token(room, fits):
    assert len(encode(LONG)) == 22
    (rollout,) = collect(
        [SLIP], FakeTeacher(demonstrate=says(LONG)), max_new_tokens=room
    )
    assert rollout.replaced is fits
    assert rollout.failed_demonstrations == (0 if fits else 3)


def test_a_suffix_keeps_the_sampled_tokens_before_the_first_rejected_step():
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    (rollout,) = collect([SLIP], teacher, replacement="suffix")
    assert teacher.demonstrated == [[DemonstrationRequest(QUESTION, FIRST)]]
    assert rollout.final.tokens == (*encode(FIRST), *encode(SECOND + LAST), EOS)
    assert rollout.final.from_teacher == (False,) * 8 + (True,) * 7
    assert rollout.final.logprobs == (*range(-1, -9, -1), *[0.0] * 7)
    assert (rollout.reward_before, rollout.reward_after) == (0.0, 1.0)


@pytest.mark.parametrize("replacement", ["suffix", "step"])
def test_sampled_tokens_are_not_tokenized_again(replacement):
    """The student spells 14 as 1, 4, which the tokenizer would never do."""
    spelled = (*encode(FIRST), *encode("1"), *encode("4"), *encode("-5\n"))
    assert spelled != encode(FIRST + SECOND)
    prompts_seen = []

    def generate(prompts, *, seed, samples=1, limits=None):
        prompts_seen.extend(prompts)
        tokens = (EOS,) if limits else (*spelled, *encode("#### 8"), EOS)
        return [[Completion(tokens, (-0.5,) * len(tokens), True)]]

    # With a line end it is not said to be the last step, and the student goes on.
    last = LAST + "\n" if replacement == "step" else LAST
    teacher = FakeTeacher(demonstrate=lambda request, rng: last)
    (rollout,) = collect(generate, teacher, replacement=replacement)
    assert rollout.student.tokens == (*spelled, *encode("#### 8"), EOS)
    assert rollout.final.tokens == (*spelled, *encode(last), EOS)
    if replacement == "step":
        assert prompts_seen[1] == (*prompts_seen[0], *spelled, *encode(last))


def test_where_no_step_is_under_the_threshold_the_lowest_makes_way():
    """The whole was rejected; the steps have 9, 7 and 8."""

    def score(request, rng):
        return {FIRST: 9, "15-5\n": 7, "#### 10": 8}.get(request.text, 0)

    teacher = FakeTeacher(score, says(RIGHT))
    (rollout,) = collect([SLIP], teacher, granularity="hybrid", replacement="suffix")
    assert teacher.demonstrated[0][0].prefix == FIRST
    assert sum(rollout.final.from_teacher) == 7


@pytest.mark.parametrize("replacement", ["trajectory", "suffix"])
@pytest.mark.parametrize("credit", ["trajectory", "step", "hybrid"])
def test_the_replacement_is_judged_where_credit_needs_its_scores(replacement, credit):
    teacher = FakeTeacher(demonstrate=says(RIGHT, None))
    first, second = collect(
        [SLIP, SLIP], teacher, samples=2, replacement=replacement, credit=credit
    )
    assert [score.value for score in first.verdict.steps] == [9, 2, 9]
    assert second.final_verdict is second.verdict
    if credit == "trajectory":
        assert first.final_verdict is None
        assert len(teacher.scored) == 1
    else:
        assert [score.value for score in first.final_verdict.steps] == [9, 9, 9]
        assert len(teacher.scored[1]) == 3  # the steps of the one that was replaced


@pytest.mark.parametrize("replacement", ["trajectory", "suffix", "step"])
@pytest.mark.parametrize("rejection", ["score", "score_or_incorrect"])
def test_where_all_are_rejected_no_score_is_asked_for(replacement, rejection):
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    first, second = collect(
        [RIGHT, SLIP], teacher, samples=2, threshold=10,
        replacement=replacement, rejection=rejection, granularity="hybrid",
    )  # fmt: skip
    assert teacher.scored == []
    for rollout in (first, second):
        assert (rollout.accepted, rollout.verdict) == (False, None)
        assert all(rollout.final.from_teacher)
        assert rollout.final.text == RIGHT
    group = Group(PROBLEM, (), (first, second))
    metrics = RolloutBuffer((group,), [[[0.0], [0.0]]], levels=10).metrics()
    assert (metrics["acceptance_rate"], metrics["teacher_share"]) == (0.0, 1.0)
    assert "score_mean" not in metrics


@pytest.mark.parametrize("credit", ["step", "hybrid"])
def test_scores_that_are_rewards_are_asked_for_all_the_same(credit):
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    (rollout,) = collect([SLIP], teacher, threshold=10, credit=credit)
    assert rollout.verdict.steps
    assert teacher.scored


@pytest.mark.parametrize("rounds", [1, 2, 9])
def test_where_all_are_rejected_every_step_is_replaced_however_few_rounds(rounds):
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    (rollout,) = collect(
        FakeStudent(goes_on_right), teacher,
        replacement="step", threshold=10, max_replaced_steps=rounds,
    )  # fmt: skip
    assert all(rollout.final.from_teacher)
    assert len(teacher.demonstrated) == 3


def test_without_rounds_nothing_is_replaced_even_there():
    (rollout,) = collect(
        [SLIP], FakeTeacher(demonstrate=says(RIGHT)),
        replacement="step", threshold=10, max_replaced_steps=0,
    )  # fmt: skip
    assert not rollout.replaced


@pytest.mark.parametrize(("rounds", "tries", "asked"), [(2, 1, 2), (1, 4, 4)])
def test_a_teacher_without_a_step_is_not_asked_for_ever(rounds, tries, asked):
    teacher = FakeTeacher(demonstrate=lambda request, rng: None)
    (rollout,) = collect(
        [SLIP], teacher, replacement="step", threshold=10,
        max_replaced_steps=rounds, demonstration_tries=tries,
    )  # fmt: skip
    assert len(teacher.demonstrated) == rollout.failed_demonstrations == asked

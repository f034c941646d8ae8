"""Steps that the teacher rewrites, and the student's continuations, token by token."""

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
    QUESTION,
    RIGHT,
    SECOND,
    SLIP,
    after,
    collect,
    goes_on_right,
    says,
)

from ovd_jax.rollout.teacher_steps import demonstrated_steps, step_end
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.steps import step_ends
from ovd_jax.teacher.base import DemonstrationRequest


def test_a_replaced_step_is_the_teachers_and_the_student_goes_on():
    student, teacher = FakeStudent(goes_on_right), FakeTeacher(demonstrate=says(RIGHT))
    (rollout,) = collect(student, teacher, replacement="step")
    assert teacher.demonstrated == [[DemonstrationRequest(QUESTION, FIRST, stop="\n")]]
    assert rollout.student.text == SLIP
    assert rollout.final.tokens == (*encode(RIGHT), EOS)
    assert rollout.final.from_teacher == (False,) * 8 + (True,) * 4 + (False,) * 3
    assert rollout.final.logprobs == (*range(-1, -9, -1), *[0.0] * 4, -1, -2, -3)
    assert student.prompts[1] == [encode(QUESTION + "=\n" + FIRST + SECOND)]
    assert student.limits == [None, [40 - 12]]
    assert (rollout.reward_before, rollout.reward_after) == (0.0, 1.0)
    assert not rollout.accepted  # the student's own was not
    assert [score.value for score in rollout.verdict.steps] == [9, 2, 9]
    assert [score.value for score in rollout.final_verdict.steps] == [9, 9, 9]
    assert len(teacher.scored) == 2


def test_step_replacement_goes_on_until_the_trajectory_is_accepted():
    """The student gets only last lines right, so steps 0 and 1 become the teacher's."""

    def write(prompt, sample, rng):
        done = prompt.count("\n") - 1
        return after("\n" * done, RIGHT if done == 2 else "8\n8-5\n#### 3")

    teacher = FakeTeacher(demonstrate=says(RIGHT))
    (rollout,) = collect(FakeStudent(write), teacher, replacement="step")
    assert [call[0].prefix for call in teacher.demonstrated] == ["", FIRST]
    assert rollout.final.text == RIGHT
    assert rollout.final.from_teacher == (True,) * 12 + (False,) * 3
    assert rollout.reward_after == 1.0


@pytest.mark.parametrize(
    ("rounds", "asked", "taught"), [(0, 0, 0), (1, 1, 8), (2, 2, 12), (5, 3, 15)]
)
def test_step_replacement_ends_after_its_rounds(rounds, asked, taught):
    """Every step is rejected: each round the teacher rewrites one more, never its own,
    until none of the student's is left. The teacher's last step ends the solution."""
    teacher = FakeTeacher(lambda request, rng: 0, says(RIGHT))
    student = FakeStudent(goes_on_right)
    (rollout,) = collect(
        student, teacher, replacement="step", max_replaced_steps=rounds
    )
    assert [call[0].prefix for call in teacher.demonstrated] == [
        "", FIRST, FIRST + SECOND
    ][:asked]  # fmt: skip
    assert len(teacher.scored) == 1 + asked
    assert len(student.prompts) == 1 + min(asked, 2)
    assert rollout.replaced is (rounds > 0)
    assert rollout.reward_after == float(rounds > 0)
    assert sum(rollout.final.from_teacher) == taught


def test_step_replacement_leaves_the_accepted_alone():
    student = FakeStudent(
        lambda prompt, g, rng: RIGHT if g == 1 else goes_on_right(prompt, g, rng)
    )
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    rollouts = collect(student, teacher, replacement="step", samples=3)
    assert [rollout.replaced for rollout in rollouts] == [True, False, True]
    assert rollouts[1].final is rollouts[1].student
    assert [len(call) for call in teacher.demonstrated] == [2]
    assert [len(call) for call in teacher.scored] == [9, 6]


@pytest.mark.parametrize("room", [11, 12, 13])
def test_a_teachers_step_must_leave_the_student_room_for_a_token(room):
    """8 tokens stay and the teacher's step has 4."""
    student = FakeStudent(goes_on_right, max_new_tokens=room)
    teacher = FakeTeacher(demonstrate=says(RIGHT))
    (rollout,) = collect(student, teacher, replacement="step", max_new_tokens=room)
    assert rollout.replaced is (room == 13)
    assert len(rollout.final.tokens) == room
    assert not rollout.final.stopped
    if room == 13:
        assert student.limits[1] == [1]


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_step_of_the_teachers_the_students_own_is_kept_and_counted(nothing):
    """It must not be sampled anew either: that would pass for the student's draw."""
    student = FakeStudent(lambda prompt, sample, rng: rng.choice((SLIP, SLIP + "1")))
    teacher = FakeTeacher(demonstrate=lambda request, rng: nothing)
    (rollout,) = collect(student, teacher, replacement="step")
    assert rollout.final is rollout.student
    assert rollout.final_verdict is rollout.verdict
    assert rollout.reward_after == rollout.reward_before == 0.0
    assert rollout.failed_demonstrations == 3
    assert len(teacher.scored[0]) == sum(map(len, teacher.scored)) == 3


def test_one_without_a_teachers_step_does_not_disturb_the_others():
    student = FakeStudent(goes_on_right)
    teacher = FakeTeacher(demonstrate=says(None, RIGHT))
    first, second = collect(student, teacher, replacement="step", samples=2)
    for rollout, failures in ((first, 1), (second, 0)):
        assert rollout.final.text == RIGHT
        assert rollout.failed_demonstrations == failures
    assert [len(call) for call in teacher.demonstrated] == [2, 1]


@pytest.mark.parametrize("said", [SECOND, SECOND + LAST, SECOND + "#### 1"])
def test_of_what_the_teacher_writes_the_first_step_is_used(said):
    student = FakeStudent(goes_on_right)
    teacher = FakeTeacher(demonstrate=lambda request, rng: said)
    (rollout,) = collect(student, teacher, replacement="step")
    assert rollout.final.text == RIGHT
    assert sum(rollout.final.from_teacher) == 4
    assert len(teacher.demonstrated) == 1


def test_a_step_that_did_not_fit_is_not_asked_for_again_as_before():
    """A cache answers equal requests alike, so each try has a number of its own."""
    student = FakeStudent(goes_on_right)
    teacher = FakeTeacher(demonstrate=lambda request, rng: SECOND * 20)
    tries = dict(max_new_tokens=12, max_replaced_steps=4)
    (rollout,) = collect(student, teacher, replacement="step", **tries)
    asked = [request for call in teacher.demonstrated for request in call]
    assert [request.attempt for request in asked] == [0, 1, 2, 3]
    assert {request.prefix for request in asked} == {FIRST}
    assert rollout.failed_demonstrations == 4


class Mathematics(ArithmeticTask):
    """Its steps are lines that keep displayed mathematics whole."""

    def step_ends(self, text):
        return step_ends(text, "lines")


@pytest.mark.parametrize(
    ("first", "whole", "step"),
    [
        ("\\[\n", "\\[\n14\n\\]\n#### 9", "\\[\n14\n\\]\n"),
        ("\n", "\n14\n9\n", "\n14\n"),
        ("so $a\n", "so $a\n+b$ is\nc", "so $a\n+b$ is\n"),
        ("```\n", "```\na\n```\nb\n", "```\na\n```\n"),
        ("14\n", None, "14\n"),
        ("#### 9", None, "#### 9"),
        ("\\[\n", "\\[\n14\n", None),  # cut
    ],
)
def test_a_stop_inside_of_a_step_is_gone_past(first, whole, step):
    teacher = FakeTeacher(
        demonstrate=lambda request, rng: whole if request.past_stop else first
    )
    (text,) = demonstrated_steps(
        teacher, Mathematics(), [DemonstrationRequest("q", "")], seed=0
    )
    end = step_end(Mathematics(), text)
    assert (end and text[:end]) == step
    assert len(teacher.demonstrated) == 1 + (whole is not None)

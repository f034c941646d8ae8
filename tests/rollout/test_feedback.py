"""The teacher's words on rejected solutions, and the student's revision after them."""

import dataclasses
import json

import pytest
from fakes import EOS, TOKENIZER, FakeStudent, FakeTeacher, encode, problem, rules
from teacher_server import TeacherServer

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.transport import Transport
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.collect import Collector
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.template import MAX_SLOT

PROBLEM = problem("(3+4)*2", "14")
RIGHT, WRONG, REVISED = "7*2\n#### 14", "7*2\n#### 15", "14\n#### 14"
# A template that the arithmetic tokenizer, which knows no letters, can read.
TEMPLATE = dataclasses.replace(
    PROMPTS["digits"], revise="{question}={solution}={feedback}"
)


class Critic(FakeTeacher):
    """Says the same of every solution, and keeps what it was asked."""

    def __init__(self, said="1-1", **options):
        super().__init__(**options)
        self.said, self.criticised = said, []

    def feedback(self, requests, *, seed):
        self.criticised.append(list(requests))
        return [self.said for _ in requests]


def writes(prompt, sample, rng):
    """Revises rightly where it reads the feedback; else the first sample is right."""
    if "1-1" in prompt:
        return REVISED
    return (RIGHT, WRONG)[sample]


def collect(teacher, *, write=writes, template=TEMPLATE, most=40, **changes):
    student = FakeStudent(write, most)
    made = Collector(
        task=ArithmeticTask(), teacher=teacher, tokenizer=TOKENIZER,
        rules=rules(**changes), template=template,
    )  # fmt: skip
    (group,) = made.collect([PROBLEM], student, seed=0)
    return group, student


def test_feedback_on_the_rejected_ones_is_kept_in_the_samples():
    teacher = Critic(demonstrate=lambda request, rng: RIGHT)
    group, _ = collect(teacher, feedback="keep")
    assert [rollout.feedback for rollout in group.rollouts] == ["", "1-1"]
    assert teacher.criticised == [[ScoreRequest("(3+4)*2", "", WRONG, whole=True)]]
    rows = list(RolloutBuffer((group,), [[[0.0], [0.0]]], levels=10).rows())
    assert [row["feedback"] for row in rows] == ["", "1-1"]
    assert json.dumps(rows)
    assert not any(row["revised"] for row in rows)
    assert group.rollouts[1].final.text == RIGHT  # the teacher's


def test_a_right_revision_takes_the_place_of_a_demonstration():
    teacher = Critic(demonstrate=lambda request, rng: RIGHT)
    group, student = collect(teacher, feedback="revise", credit="hybrid")
    kept, revised = group.rollouts
    assert (kept.revised, revised.revised, revised.replaced) == (False, True, True)
    assert TOKENIZER.decode(student.prompts[1][0]) == f"(3+4)*2={WRONG}=1-1=\n"
    assert revised.final.tokens == (*encode(REVISED), EOS)  # as sampled
    assert set(revised.final.logprobs) == {0.0}
    assert all(revised.final.from_teacher)  # not sampled after its prompt
    assert revised.reward_after == 1.0
    assert revised.final_verdict.steps  # judged again, for its credit
    assert teacher.demonstrated == []


def test_the_choices_stand_with_the_question_before_the_feedback():
    asked = dataclasses.replace(PROBLEM, choices=("13", "14"))
    shown = dataclasses.replace(
        TEMPLATE, revise="Q{question}\nS{solution}\nF{feedback}"
    )
    prompts = []

    class Asks(ArithmeticTask):
        def prompt(self, problem):
            prompts.append(problem.asked)
            return problem.question[:0] + "1="

    made = Collector(
        task=Asks(), teacher=Critic(demonstrate=lambda request, rng: RIGHT),
        tokenizer=TOKENIZER, rules=rules(feedback="revise"), template=shown,
    )  # fmt: skip
    made.collect([asked], FakeStudent(lambda prompt, sample, rng: WRONG), seed=0)
    question = "(3+4)*2\n(A) 13\n(B) 14"
    assert prompts[0] == question
    assert prompts[1:] == [f"Q{question}\nS{WRONG}\nF1-1"] * 2


@pytest.mark.parametrize("cut", [True, False])
def test_a_revision_that_was_cut_is_not_taken_though_it_is_right(cut):
    """It has not learnt to end."""
    longest = "7*2\n14\n14\n#### 14"

    def write(prompt, sample, rng):
        return longest if "1-1" in prompt else WRONG

    teacher = Critic(demonstrate=lambda request, rng: RIGHT)
    most = len(encode(longest)) + (not cut)
    group, _ = collect(teacher, write=write, most=most, feedback="revise")
    finals = {(rollout.revised, rollout.final.text) for rollout in group.rollouts}
    assert finals == {(False, RIGHT) if cut else (True, longest)}


def test_after_a_wrong_revision_the_teacher_demonstrates():
    def wrong(prompt, sample, rng):
        return WRONG if "1-1" in prompt else (RIGHT, WRONG)[sample]

    teacher = Critic(demonstrate=lambda request, rng: RIGHT)
    group, _ = collect(teacher, write=wrong, feedback="revise")
    rollout = group.rollouts[1]
    assert (rollout.revised, rollout.final.text) == (False, RIGHT)
    assert rollout.failed_demonstrations == 0


def test_feedback_needs_a_prompt_that_asks_for_it_and_whole_solutions():
    with pytest.raises(ValueError, match="feedback 'keep' needs"):
        collect(Critic(), feedback="keep", template=PROMPTS["embedded"])
    with pytest.raises(ValueError, match="'often' is not one of none, keep, revise"):
        rules(feedback="often")
    with pytest.raises(ValueError, match="set replacement to trajectory or suffix"):
        rules(feedback="revise", replacement="step")


def test_the_gold_answer_reaches_the_judge_only_by_a_prompt_that_shows_it():
    teacher = FakeTeacher(demonstrate=lambda request, rng: RIGHT)
    collect(teacher)
    assert {request.reference for request in teacher.scored[0]} == {""}
    collect(teacher, template=PROMPTS["digits_reference"])
    assert {request.reference for request in teacher.scored[-1]} == {"14"}


def test_a_served_teacher_gives_feedback_within_its_budget():
    with TeacherServer() as server:
        transport = Transport(
            [server.url], name="", key=None, timeout_s=2.0, retries=1, wait=False,
            max_concurrency=4, accounting=Accounting(),
        )  # fmt: skip
        teacher = OpenAITeacher(
            transport, prompt=PROMPTS["digits"], score_rule="argmax",
            score_temperature=1, temperature=0.7, max_new_tokens=10, on_failure="drop",
        )  # fmt: skip
        asked = [ScoreRequest("2+2?", "", f"2+2={i}", whole=True) for i in range(3)]
        texts = teacher.feedback(asked, seed=1)
        assert (
            texts == teacher.feedback(asked, seed=1) != teacher.feedback(asked, seed=2)
        )
        assert all(len(text) == 10 for text in texts)  # cut, and kept
        content = server.bodies[-1]["messages"][0]["content"]
        assert "<solution>\n2+2=" in content
        server.faults = {"500": 1.0}
        assert teacher.feedback(asked, seed=1) == [None] * 3
        transport.close()


@pytest.mark.parametrize(
    ("solution", "said", "cut"),
    [
        (WRONG, "1-1", 0),
        ("1" * MAX_SLOT, "1-1", 0),
        ("1" * (MAX_SLOT + 1), "1-1", 1),
        (WRONG, "1-1" * MAX_SLOT, 1),
        ("1" * 2 * MAX_SLOT, "1-1" * MAX_SLOT, 2),
    ],
)
def test_texts_that_are_cut_in_the_prompt_of_a_revision_are_counted(
    solution, said, cut
):
    made = Collector(
        task=ArithmeticTask(), teacher=Critic(said), tokenizer=TOKENIZER,
        rules=rules(feedback="revise", samples=3), template=TEMPLATE,
    )  # fmt: skip

    def write(prompt, sample, rng):
        first = prompt == f"{PROBLEM.question}=\n"
        return solution if first and sample < 2 else RIGHT

    student = FakeStudent(write, max_new_tokens=10**6)
    groups = made.collect([PROBLEM], student, seed=0)
    assert [rollout.revised for rollout in groups[0].rollouts] == [True, True, False]
    assert made.metrics(groups) == {"revise_slots_cut": 2.0 * cut}
    assert made.metrics(groups) == {"revise_slots_cut": 0.0}  # since the last call

"""Exact truths about what students sample."""

import pytest

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.rollout.trajectory import Trajectory
from ovd_jax.search.observation import observation
from ovd_jax.tasks.base import Problem
from ovd_jax.toy.world import World
from ovd_jax.toy.world_turns import turn
from ovd_jax.wiring.student_samples import (
    arithmetic_truths,
    exact_turn_scores,
    step_truths,
)


def load(name: str, **changes):
    config = flags.load_file(f"configs/{name}.py").copy_and_resolve_references()
    config.update(changes)
    return config


def steps(*texts: str, turns=()) -> Trajectory:
    return Trajectory(
        tokens=(), logprobs=(), from_teacher=(), text="".join(texts),
        step_texts=texts, step_ends=(), stopped=True, turns=turns,
    )  # fmt: skip


def test_arithmetic_knows_which_steps_are_right():
    problem = Problem(id="1", question="(3+4)*2", answer="14", source="arithmetic")
    written = steps("7*2\n", "15\n", "#### 15")
    assert arithmetic_truths(problem, written) == [True, False, True]
    assert step_truths(load("quickstart"))(problem, written) == [True, False, True]


def test_the_world_knows_which_turns_are_right():
    world = World()
    question = world.questions("train", 1)[0]
    (fact,), _ = question.follow(world.facts)
    need = question.follow([])[1]
    asks = turn(f"I need {need.phrase}.", "search", need.queries[0])
    reading = observation([fact.document], (), 1000)
    answers = turn(fact.sentence, "answer", fact.value)
    problem = Problem("1", question.text, question.answer, "world_1hop")
    conversation = steps(asks + reading, answers, turns=(asks, answers))
    config = load("quickstart_search")
    assert step_truths(config)(problem, conversation) == [True, True]
    unread = steps(asks, answers, turns=(asks, answers))
    assert step_truths(config)(problem, unread) == [True, False]
    assert exact_turn_scores(config)(problem, unread) == [9, 1]


def test_other_tasks_have_no_exact_truths():
    assert step_truths(load("quickstart", task="math")) is None
    config = load("quickstart_search", data="nq")
    assert step_truths(config) is None
    with pytest.raises(UserError, match="'nq' is no made-up world"):
        exact_turn_scores(config)

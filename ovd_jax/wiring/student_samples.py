"""The student's samples outside training, to measure or to teach a judge."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

from ml_collections import ConfigDict

from ovd_jax.errors import UserError
from ovd_jax.evaluation.judge import JudgedSample, expected_value
from ovd_jax.rollout.trajectory import Trajectory, Verdict
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import Teacher
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.toy.graded import is_right
from ovd_jax.toy.world import world_named
from ovd_jax.toy.world_turns import graded_turns
from ovd_jax.wiring.env import asked_by, make_dialogue, make_env, make_pool
from ovd_jax.wiring.models import find_model, load_model, load_tokenizer
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.student import student_sampler
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.training import make_collector

Rollouts = Callable[..., tuple[list[Trajectory], list[float], list[Verdict | None]]]


@contextlib.contextmanager
def student_rollouts(
    config: ConfigDict, student: str, teacher: Teacher | None = None
) -> Iterator[Rollouts]:
    """Yields `(problems, seed=) -> (trajectories, rewards, verdicts)`.

    It samples `config.samples` trajectories of each problem in turn, as in training,
    and asks the `teacher`, if there is one, for verdicts.
    """
    folder = find_model(student, "student")
    tokenizer = load_tokenizer(folder)
    task = make_task(config, tokenizer)
    env = make_env(config, task, tokenizer)
    task = asked_by(env, task)
    sampler = student_sampler(config, folder, tokenizer, task)
    generate = functools.partial(sampler, load_model(folder, config))
    pool = make_pool(config, training=True)
    dialogue = make_dialogue(config, env, tokenizer, pool, training=True)
    collector = make_collector(
        config, dialogue, task=task, teacher=teacher, tokenizer=tokenizer
    )

    def rollouts(problems: Sequence[Problem], *, seed: int):
        prompts = [collector.encode(task.prompt(problem)) for problem in problems]
        sample = generate
        if dialogue is not None:
            sample = functools.partial(dialogue.generate, generate, problems=problems)
        return collector.sample_and_score(problems, prompts, sample, seed=seed)

    try:
        yield rollouts
    finally:
        close(pool)


def judged_samples(
    config: ConfigDict,
    student: str,
    problems: Sequence[Problem],
    teacher: Teacher,
    *,
    seed: int,
) -> list[JudgedSample]:
    """The student's samples with the teacher's verdicts; without a verdict a sample is
    left out."""
    with student_rollouts(config, student, teacher) as rollouts:
        trajectories, rewards, verdicts = rollouts(problems, seed=seed)
    truths = step_truths(config)
    asked = [problem for problem in problems for _ in range(config.samples)]
    rows = zip(asked, trajectories, rewards, verdicts, strict=True)
    return [
        JudgedSample(
            verdict.value,
            expected_value(verdict.steps, verdict.whole, config.step_aggregation),
            reward == 1.0,
            tuple(zip(verdict.steps, truths(problem, trajectory), strict=True))
            if truths
            else (),
            (*verdict.steps, *filter(None, [verdict.whole])),
        )
        for problem, trajectory, reward, verdict in rows
        if verdict and verdict.answered
    ]


def step_truths(
    config: ConfigDict,
) -> Callable[[Problem, Trajectory], list[bool]] | None:
    """`(problem, trajectory) -> whether each step is right`, for tasks with exact
    checks: arithmetic and questions about the made-up world. None for others."""
    if config.task == "arithmetic":
        return arithmetic_truths
    if config.task == "qa" and world_named(config.data):
        scores = exact_turn_scores(config)
        level = load_prompt(config.teacher.prompt).level_of(config.threshold)
        return lambda problem, trajectory: [
            score >= level for score in scores(problem, trajectory)
        ]
    return None


def arithmetic_truths(problem: Problem, trajectory: Trajectory) -> list[bool]:
    """True for each line with the value of the line before it."""
    lines = [step.strip() for step in trajectory.step_texts]
    pairs = itertools.pairwise([problem.question, *lines])
    return [is_right(before, line) for before, line in pairs]


def exact_turn_scores(config: ConfigDict) -> Callable[[Problem, Trajectory], list[int]]:
    """`(problem, trajectory) -> the score 0-9 of each turn` in the world of
    `config.data`. Raises UserError if that names none."""
    world = world_named(config.data)
    if world is None:
        raise UserError(
            f"config.data {config.data!r} is no made-up world, whose turns alone have "
            "exact scores; set it to world, or to world:SEED."
        )

    def scores(problem: Problem, trajectory: Trajectory) -> list[int]:
        question = world.asked(problem.question)
        assert question is not None  # the problem is of this world
        return graded_turns(question, trajectory.turns, readings(trajectory))

    return scores


def readings(trajectory: Trajectory) -> list[str]:
    """The observation after each turn of a conversation."""
    pairs = zip(trajectory.turns, trajectory.step_texts, strict=True)
    return [step[len(turn) :] for turn, step in pairs]

"""Groups of solutions that the student did not write, and parts of groups to train
on."""

import dataclasses
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.rollout.collect import Collector, make_group
from ovd_jax.rollout.replace import (
    candidate_rewards,
    demonstrated,
    spliced,
    to_the_end,
)
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory
from ovd_jax.tasks.base import Problem

_NOTHING = Trajectory((), (), (), "", (), (), stopped=False)
_UNWRITTEN = Rollout(_NOTHING, None, False, _NOTHING, None, 0.0, 0.0)


def teacher_groups(
    collector: Collector, problems: Sequence[Problem], generate: Callable, *, seed: int
) -> list[Group]:
    """Of each problem as many solutions as the student would have samples, by the
    teacher; those that are not right, if they must be, or not complete are left out."""
    asked = [problem for problem in problems for _ in range(collector.rules.samples)]
    rollouts = to_the_end(
        collector, [_UNWRITTEN] * len(asked), asked, generate, seed=seed
    )
    return _groups(collector, problems, rollouts)


def given_groups(
    collector: Collector, problems: Sequence[Problem], generate: Callable, *, seed: int
) -> list[Group]:
    """The solution that the data has for each problem, if it is right, or need not be,
    and not too long. Raises UserError where it has none."""
    for problem in problems:
        if not problem.solution:
            raise UserError(
                f"Problem {problem.id!r} has no solution in the data; set "
                "distill.solutions to teacher, or use data with solutions."
            )
    candidates = [spliced(collector, _NOTHING, 0, p.solution) for p in problems]
    rewards = candidate_rewards(collector, problems, candidates)
    least = 1.0 if collector.rules.only_correct else 0.0
    rollouts = [
        demonstrated(_UNWRITTEN, found, reward, least)
        for found, reward in zip(candidates, rewards, strict=True)
    ]
    return _groups(collector, problems, rollouts)


def _groups(collector, problems, rollouts: Sequence[Rollout]) -> list[Group]:
    """Groups of those rollouts that have a solution, equally many a problem."""
    size = len(rollouts) // max(len(problems), 1)
    groups = []
    for p, problem in enumerate(problems):
        found = [
            dataclasses.replace(rollout, student=rollout.final, accepted=True)
            for rollout in rollouts[p * size : (p + 1) * size]
            if rollout.replaced
        ]
        prompt = collector.encode(collector.task.prompt(problem))
        groups.append(make_group(problem, prompt, found))
    return groups


def accepted_groups(groups: Sequence[Group]) -> list[Group]:
    """The groups with those rollouts alone that were accepted and are right."""
    return [
        dataclasses.replace(
            group,
            rollouts=tuple(
                r for r in group.rollouts if r.accepted and r.reward_after == 1.0
            ),
        )
        for group in groups
    ]


def pairs(groups: Sequence[Group]) -> list[Group]:
    """A group of two for each trajectory that the teacher replaced: the teacher's, then
    the student's."""
    return [
        dataclasses.replace(
            group,
            rollouts=(r, dataclasses.replace(r, final=r.student, accepted=False)),
            dropped=(),
        )
        for group in groups
        for r in group.rollouts
        if r.sampled and r.replaced
    ]

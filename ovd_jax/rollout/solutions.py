"""Groups of solutions that the student did not write, and parts of groups to train
on."""

import dataclasses
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.rollout.collect import Collector, make_groups
from ovd_jax.rollout.replace import finish, with_candidates
from ovd_jax.rollout.trajectory import Draft, Group, Rollout, Trajectory
from ovd_jax.sampling.completion import Generate
from ovd_jax.tasks.base import Problem

_NOTHING = Trajectory((), (), (), "", (), (), stopped=False)
_UNWRITTEN = Rollout(_NOTHING, None, False, _NOTHING, None, 0.0, 0.0)


def teacher_groups(
    collector: Collector, problems: Sequence[Problem], generate: Generate, *, seed: int
) -> list[Group]:
    """Groups of `rules.samples` solutions by the teacher, without those that are
    incomplete, or wrong if only correct ones are taken."""
    drafts = [unwritten(problem) for problem in collector.repeated(problems)]
    drafts = finish(collector, drafts, generate, seed=seed)
    return _groups(collector, problems, drafts)


def given_groups(
    collector: Collector, problems: Sequence[Problem], generate: Generate, *, seed: int
) -> list[Group]:
    """Groups of the one solution that the data has, without those that are too long,
    or wrong if only correct ones are taken. Raises UserError if the data has none."""
    for problem in problems:
        if not problem.solution:
            raise UserError(
                f"Problem {problem.id!r} has no solution in the data; set "
                "distill.solutions to teacher, or use data with solutions."
            )
    candidates = [collector.spliced(_NOTHING, 0, p.solution) for p in problems]
    drafts = [unwritten(problem) for problem in problems]
    return _groups(collector, problems, with_candidates(collector, drafts, candidates))


def unwritten(problem: Problem) -> Draft:
    """A draft of a solution that nobody has begun."""
    return Draft(problem, (), _UNWRITTEN, accepted=False)


def _groups(
    collector: Collector, problems: Sequence[Problem], drafts: Sequence[Draft]
) -> list[Group]:
    """Groups of the drafts that have a solution; equally many drafts a problem."""
    prompts = [collector.encode(collector.task.prompt(problem)) for problem in problems]
    rollouts = [draft.rollout for draft in drafts]
    given = [dataclasses.replace(r, student=r.final, accepted=True) for r in rollouts]
    return [
        with_rollouts(group, lambda rollout: rollout.replaced)
        for group in make_groups(problems, prompts, given)
    ]


def with_rollouts(group: Group, condition: Callable[[Rollout], bool]) -> Group:
    """The group with only the rollouts that meet the condition."""
    kept = tuple(rollout for rollout in group.rollouts if condition(rollout))
    return dataclasses.replace(group, rollouts=kept)


def accepted_groups(groups: Sequence[Group]) -> list[Group]:
    """The groups with only the accepted and correct rollouts."""
    return [
        with_rollouts(group, lambda r: r.accepted and r.reward_after == 1.0)
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

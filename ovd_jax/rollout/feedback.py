"""What the teacher says of rejected solutions, and the student's revision after it."""

import dataclasses
from collections.abc import Callable, Sequence

from ovd_jax.rollout.trajectory import Rollout
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.template import fill


def with_feedback(
    collector, drafts: Sequence[Rollout], problems: Sequence[Problem], *, seed: int
) -> list[Rollout]:
    """The drafts, the rejected ones with the teacher's feedback if the rules ask for
    any."""
    drafts = list(drafts)
    if collector.rules.feedback == "none":
        return drafts
    rejected = [i for i, draft in enumerate(drafts) if not draft.accepted]
    texts = collector.teacher.feedback(
        [
            ScoreRequest(
                question=problems[i].asked,
                previous="",
                text=drafts[i].student.text,
                whole=True,
                reference=collector.reference(problems[i]),
            )
            for i in rejected
        ],
        seed=seed,
    )
    for i, text in zip(rejected, texts, strict=True):
        drafts[i] = dataclasses.replace(drafts[i], feedback=text or "")
    return drafts


def revisions(
    collector,
    drafts: Sequence[Rollout],
    problems: Sequence[Problem],
    generate: Callable,
    *,
    seed: int,
) -> list:
    """What the student makes of each rejected solution and its feedback; None without
    feedback.

    It reads both, which it will not at the next problem: to the prompt that is trained
    on, the revision's tokens are a demonstration's, not samples.
    """
    told = [i for i, draft in enumerate(drafts) if draft.feedback]
    prompts = []
    for i in told:
        question = fill(
            collector.wording.revise,
            (),
            on_cut=lambda name: collector.counts.update(revise_slots_cut=1),
            question=problems[i].asked,
            solution=drafts[i].student.text,
            feedback=drafts[i].feedback,
        )
        asked = dataclasses.replace(problems[i], question=question, choices=())
        prompts.append(collector.encode(collector.task.prompt(asked)))
    trajectories = [None] * len(drafts)
    groups = generate(prompts, seed=seed, samples=1) if prompts else []
    for i, (completion,) in zip(told, groups, strict=True):
        if completion.stopped:
            count = len(completion.tokens)
            trajectories[i] = collector.trajectory(
                completion.tokens, [0.0] * count, [True] * count, stopped=True
            )
    return trajectories

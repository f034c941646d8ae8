"""The teacher's feedback on rejected solutions, and the student's revisions."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovd_jax.rollout.trajectory import Draft, Trajectory, change_where
from ovd_jax.sampling.completion import Generate
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.template import fill

if TYPE_CHECKING:
    from ovd_jax.rollout.collect import Collector


def with_feedback(
    collector: "Collector", drafts: Sequence[Draft], *, seed: int
) -> list[Draft]:
    """The drafts, the rejected ones with the teacher's feedback if the rules ask for
    any."""
    if collector.rules.feedback == "none":
        return list(drafts)

    def ask(rejected: list[Draft]) -> list[Draft]:
        requests = [feedback_request(collector, draft) for draft in rejected]
        texts = collector.need_teacher().feedback(requests, seed=seed)
        return [
            draft.with_rollout(feedback=text or "")
            for draft, text in zip(rejected, texts, strict=True)
        ]

    return change_where(drafts, lambda draft: not draft.accepted, ask)


def feedback_request(collector: "Collector", draft: Draft) -> ScoreRequest:
    """The request for feedback on the student's whole solution."""
    return ScoreRequest(
        question=draft.problem.asked,
        previous="",
        text=draft.rollout.student.text,
        whole=True,
        reference=collector.judge.reference(draft.problem),
    )


def revisions(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Trajectory | None]:
    """The student's revision of each rejected solution; None if there is no feedback or
    the revision did not end.

    The student reads solution and feedback here, but only the problem when it is
    trained. So a revision's tokens count as a demonstration's, not as samples.
    """
    told = [i for i, draft in enumerate(drafts) if draft.rollout.feedback]
    trajectories: list[Trajectory | None] = [None] * len(drafts)
    prompts = [revision_prompt(collector, drafts[i]) for i in told]
    groups = generate(prompts, seed=seed, samples=1) if prompts else []
    for i, (completion,) in zip(told, groups, strict=True):
        if completion.stopped:
            count = len(completion.tokens)
            trajectories[i] = collector.trajectory(
                completion.tokens, [0.0] * count, [True] * count, stopped=True
            )
    return trajectories


def revision_prompt(collector: "Collector", draft: Draft) -> list[int]:
    """Tokens that ask the student to revise its solution after the feedback."""
    template = collector.template
    assert template is not None  # see `check_feedback`
    question = fill(
        template.revise,
        (),
        on_cut=lambda name: collector.counts.update(revise_slots_cut=1),
        question=draft.problem.asked,
        solution=draft.rollout.student.text,
        feedback=draft.rollout.feedback,
    )
    asked = dataclasses.replace(draft.problem, question=question, choices=())
    return collector.encode(collector.task.prompt(asked))

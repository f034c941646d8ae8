"""Replaces rejected trajectories, as `rules.replacement` says.

`trajectory`: the teacher writes the whole solution (Algorithm 1). `suffix`: the teacher
finishes the solution from the first rejected step. `step`: the teacher rewrites that
step alone and the student continues (section 3.3). Kept tokens are those that were
sampled.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovd_jax.rollout.accept import first_rejected_step, verdict_on
from ovd_jax.rollout.feedback import revisions
from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.single_turn import joined
from ovd_jax.rollout.trajectory import Draft, Rollout, Trajectory, change_where
from ovd_jax.sampling.completion import Generate
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import DemonstrationRequest

if TYPE_CHECKING:
    from ovd_jax.rollout.collect import Collector


def replace_rejected(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Draft]:
    """The drafts, with the rejected ones replaced; `collector` judges and rewards."""
    by_replacement = {"trajectory": finish, "suffix": finish, "step": rewrite_steps}
    replace = functools.partial(
        by_replacement[collector.rules.replacement],
        collector, generate=generate, seed=seed,
    )  # fmt: skip
    return change_where(drafts, lambda draft: not draft.accepted, replace)


def finish(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Draft]:
    """The student revises each solution, if the rules say so; if the revision is wrong,
    the teacher finishes the solution.

    A wrong demonstration, or one without room, is asked for again. After the last try
    the student's own trajectory stays.
    """
    if collector.rules.feedback == "revise":
        drafts = revise(collector, drafts, generate, seed=derive(seed, "revise"))
    for attempt in range(collector.rules.demonstration_tries):
        demonstrate = functools.partial(
            with_demonstrations, collector,
            attempt=attempt, seed=derive(seed, attempt),
        )  # fmt: skip
        drafts = change_where(drafts, is_unreplaced, demonstrate)
    if collector.rules.credit != "trajectory":
        judge = functools.partial(judge_final, collector, seed=derive(seed, "final"))
        drafts = change_where(drafts, lambda draft: draft.rollout.replaced, judge)
    return list(drafts)


def is_unreplaced(draft: Draft) -> bool:
    """True if no token of the draft is the teacher's yet."""
    return not draft.rollout.replaced


def revise(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Draft]:
    """The drafts, each replaced by the student's revision if that is correct."""
    candidates = revisions(collector, drafts, generate, seed=seed)
    rewards = candidate_rewards(collector, problems_of(drafts), candidates)
    return [
        draft.with_rollout(
            final=candidate, final_verdict=None, reward_after=reward, revised=True
        )
        if candidate is not None and reward == 1.0
        else draft
        for draft, candidate, reward in zip(drafts, candidates, rewards, strict=True)
    ]


def with_demonstrations(
    collector: "Collector", drafts: Sequence[Draft], *, attempt: int, seed: int
) -> list[Draft]:
    """Asks the teacher to finish each draft; keeps what is worth the rules' reward."""
    kept = [kept_tokens(draft.rollout, collector.rules) for draft in drafts]
    texts = collector.need_teacher().demonstrate(
        [
            DemonstrationRequest(
                draft.problem.asked, collector.text(draft.rollout.final, n), attempt
            )
            for draft, n in zip(drafts, kept, strict=True)
        ],
        seed=seed,
    )
    candidates = [
        collector.spliced(draft.rollout.final, n, text)
        for draft, n, text in zip(drafts, kept, texts, strict=True)
    ]
    return with_candidates(collector, drafts, candidates)


def with_candidates(
    collector: "Collector",
    drafts: Sequence[Draft],
    candidates: Sequence[Trajectory | None],
) -> list[Draft]:
    """Replaces each draft by its candidate if that earns enough reward: 1 if the rules
    take only correct ones, else any. Counts the failures."""
    rewards = candidate_rewards(collector, problems_of(drafts), candidates)
    least = 1.0 if collector.rules.only_correct else 0.0
    return [
        failed(draft)
        if candidate is None or reward < least
        else draft.with_rollout(
            final=candidate, final_verdict=None, reward_after=reward
        )
        for draft, candidate, reward in zip(drafts, candidates, rewards, strict=True)
    ]


def candidate_rewards(
    collector: "Collector",
    problems: Sequence[Problem],
    candidates: Sequence[Trajectory | None],
) -> list[float]:
    """Rewards of the candidates, 0 for None."""
    rewards = [0.0] * len(candidates)
    kept = {i: x for i, x in enumerate(candidates) if x is not None}
    found = collector.rewards([problems[i] for i in kept], list(kept.values()))
    for i, reward in zip(kept, found, strict=True):
        rewards[i] = reward
    return rewards


def judge_final(
    collector: "Collector", drafts: Sequence[Draft], *, seed: int
) -> list[Draft]:
    """The drafts with verdicts on their final trajectories, for credit by steps."""
    finals = [draft.rollout.final for draft in drafts]
    verdicts = collector.judge.verdicts(problems_of(drafts), finals, seed=seed)
    return [
        draft.with_rollout(final_verdict=verdict)
        for draft, verdict in zip(drafts, verdicts, strict=True)
    ]


def rewrite_steps(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Draft]:
    """Rewrites the first rejected step of each draft, lets the student continue and
    judges again, until the draft is accepted or `is_open` says no.

    The teacher's own steps are not rejected: they would only be asked for again.
    """
    still_open = functools.partial(is_open, collector)
    number = 0
    while any(map(still_open, drafts)):
        rewrite = functools.partial(
            rewrite_one_step, collector,
            generate=generate, seed=derive(seed, number),
        )  # fmt: skip
        drafts = change_where(drafts, still_open, rewrite)
        number += 1
    return list(drafts)


def is_open(collector: "Collector", draft: Draft) -> bool:
    """True if one more step of the draft is to be rewritten.

    A threshold that rejects all takes as many rounds as there are steps; only failures
    are bounded then.
    """
    rollout, rules = draft.rollout, collector.rules
    if draft.accepted or not rollout.final.student_steps:
        return False
    rounds = rules.max_replaced_steps
    if collector.judge.rejects_all and rounds:
        return rollout.failed_demonstrations < max(rounds, rules.demonstration_tries)
    return draft.round < rounds


def rewrite_one_step(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Draft]:
    """The drafts with one more step by the teacher and a new verdict, or with one more
    failure."""
    trajectories = with_teacher_step(
        collector, drafts, generate, seed=derive(seed, "go")
    )
    pairs = list(zip(drafts, trajectories, strict=True))
    rewritten = [(draft, new) for draft, new in pairs if new is not None]
    judged = iter(judge_again(collector, rewritten, seed=seed))
    drafts = [failed(d) if new is None else next(judged) for d, new in pairs]
    return [dataclasses.replace(d, round=d.round + 1) for d in drafts]


def judge_again(
    collector: "Collector", rewritten: Sequence[tuple[Draft, Trajectory]], *, seed: int
) -> list[Draft]:
    """Rewards, scores and accepts or rejects the new trajectory of each draft; scores
    of the teacher's steps do not count against it."""
    problems = [draft.problem for draft, _ in rewritten]
    trajectories = [new for _, new in rewritten]
    rewards = collector.rewards(problems, trajectories)
    verdicts = collector.judge.verdicts(
        problems, trajectories, seed=derive(seed, "score")
    )
    how = collector.rules.step_aggregation
    own = [
        verdict_on(verdict, new.student_steps, aggregation=how)
        for verdict, new in zip(verdicts, trajectories, strict=True)
    ]
    accepted = collector.judge.accepts(own, rewards, seed=derive(seed, "accept"))
    rounds = zip(rewritten, verdicts, rewards, accepted, strict=True)
    return [
        dataclasses.replace(
            draft.with_rollout(final=new, final_verdict=verdict, reward_after=reward),
            accepted=ok,
        )
        for (draft, new), verdict, reward, ok in rounds
    ]


def with_teacher_step(
    collector: "Collector", drafts: Sequence[Draft], generate: Generate, *, seed: int
) -> list[Trajectory | None]:
    """For each draft the accepted prefix, one step by the teacher and the student's
    continuation, if that step was not the last; None if no step fits."""
    kept = [kept_tokens(draft.rollout, collector.rules) for draft in drafts]
    texts = collector.demonstrated_steps(
        [
            DemonstrationRequest(
                draft.problem.asked,
                collector.text(draft.rollout.final, n),
                draft.rollout.failed_demonstrations,
            )
            for draft, n in zip(drafts, kept, strict=True)
        ],
        seed=seed,
    )
    opened, openings = [], []
    for i, (draft, n, text) in enumerate(zip(drafts, kept, texts, strict=True)):
        if step := collector.first_step(text, n):
            tokens = joined(draft.rollout.final, n, step)
            opened.append(i)
            openings.append(collector.trajectory(*tokens, stopped=False))
    continued = collector.continued(
        openings,
        [drafts[i].problem for i in opened],
        [drafts[i].prompt for i in opened],
        generate,
        seed=derive(seed, "student"),
    )
    trajectories: list[Trajectory | None] = [None] * len(drafts)
    for i, trajectory in zip(opened, continued, strict=True):
        trajectories[i] = trajectory
    return trajectories


def kept_tokens(rollout: Rollout, rules: Rules) -> int:
    """How many leading tokens of a rejected trajectory stay."""
    if rules.replacement == "trajectory":
        return 0
    own = rollout.final.student_steps
    step = own[0]
    if rollout.final_verdict is not None:
        step = first_rejected_step(rollout.final_verdict, rules.threshold, among=own)
    return (0, *rollout.final.step_ends)[step]


def failed(draft: Draft) -> Draft:
    """The draft with one more failed demonstration."""
    count = draft.rollout.failed_demonstrations + 1
    return draft.with_rollout(failed_demonstrations=count)


def problems_of(drafts: Sequence[Draft]) -> list[Problem]:
    """The problem of each draft."""
    return [draft.problem for draft in drafts]

"""What takes a rejected trajectory's place, by `rules.replacement`.

`trajectory`: the teacher's whole solution (Algorithm 1). `suffix`: the teacher finishes
from the first rejected step. `step`: the teacher rewrites that step alone and the
student goes on (section 3.3). Tokens that are kept are the ones that were sampled.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from ovd_jax.rollout.accept import first_rejected_step, verdict_on
from ovd_jax.rollout.feedback import revisions
from ovd_jax.rollout.trajectory import Rollout, Trajectory
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import DemonstrationRequest


def replace_rejected(
    collector,
    drafts: Sequence[Rollout],
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    generate: Callable,
    *,
    seed: int,
) -> list[Rollout]:
    """The drafts, with the rejected ones replaced; `problems` and `prompts` are theirs.

    `collector` (rollout/collect.py) judges, rewards and tokenizes.
    """
    rollouts = list(drafts)
    rejected = [i for i, draft in enumerate(drafts) if not draft.accepted]
    parts = [[x[i] for i in rejected] for x in (drafts, problems, prompts)]
    if collector.rules.replacement == "step":
        replaced = step_by_step(collector, *parts, generate, seed=seed)
    else:
        replaced = to_the_end(collector, *parts[:2], generate, seed=seed)
    for i, rollout in zip(rejected, replaced, strict=True):
        rollouts[i] = rollout
    return rollouts


def to_the_end(collector, drafts, problems, generate, *, seed: int) -> list[Rollout]:
    """The student revises each solution, if the rules say so; where that is wrong, the
    teacher finishes it.

    One of the teacher's that is wrong or does not fit is asked for again; after the
    last try the student's own trajectory stays, and that is counted.
    """
    rollouts = list(drafts)
    if collector.rules.feedback == "revise":
        rollouts = revised(collector, rollouts, problems, generate, seed=seed)
    pending = [i for i, rollout in enumerate(rollouts) if not rollout.replaced]
    kept = [kept_tokens(draft, collector.rules) for draft in drafts]
    for attempt in range(collector.rules.demonstration_tries):
        if not pending:
            break
        texts = collector.teacher.demonstrate(
            [
                DemonstrationRequest(
                    problems[i].asked,
                    collector.text(drafts[i].student, kept[i]),
                    attempt,
                )
                for i in pending
            ],
            seed=derive(seed, attempt),
        )
        candidates = [
            spliced(collector, drafts[i].student, kept[i], text)
            for i, text in zip(pending, texts, strict=True)
        ]
        rewards = candidate_rewards(
            collector, [problems[i] for i in pending], candidates
        )
        for i, candidate, reward in zip(pending, candidates, rewards, strict=True):
            least = 1.0 if collector.rules.only_correct else 0.0
            rollouts[i] = demonstrated(rollouts[i], candidate, reward, least)
        pending = [i for i in pending if not rollouts[i].replaced]
    return with_final_verdicts(collector, rollouts, problems, seed=seed)


def revised(collector, drafts, problems, generate, *, seed: int) -> list[Rollout]:
    """The drafts, with what the student revised in its place where that is right."""
    candidates = revisions(
        collector, drafts, problems, generate, seed=derive(seed, "revise")
    )
    rewards = candidate_rewards(collector, problems, candidates)
    return [
        dataclasses.replace(demonstrated(draft, candidate, reward), revised=True)
        if reward == 1.0
        else draft
        for draft, candidate, reward in zip(drafts, candidates, rewards, strict=True)
    ]


def demonstrated(
    rollout: Rollout, candidate: Trajectory | None, reward: float, least: float = 1.0
):
    """The rollout with a demonstration in its place that is worth the `least` reward,
    or one more failure."""
    if candidate is None or reward < least:
        return failed(rollout)
    return dataclasses.replace(
        rollout, final=candidate, final_verdict=None, reward_after=reward
    )


def failed(rollout: Rollout) -> Rollout:
    """The rollout with one more demonstration counted that was thrown away."""
    count = rollout.failed_demonstrations + 1
    return dataclasses.replace(rollout, failed_demonstrations=count)


def kept_tokens(draft: Rollout, rules) -> int:
    """How many of a rejected trajectory's first tokens stay."""
    if rules.replacement == "trajectory":
        return 0
    own = draft.student.own_steps
    step = own[0]
    if draft.verdict is not None:
        step = first_rejected_step(draft.verdict, rules.threshold, among=own)
    return (0, *draft.student.step_ends)[step]


def spliced(collector, student: Trajectory, kept: int, text: str | None):
    """The student's first tokens, the teacher's text and an end token; None where there
    is no text or no room for it."""
    if text is None:
        return None
    added = [*collector.encode(text), collector.tokenizer.eos_token_id]
    if kept + len(added) > collector.rules.max_new_tokens:
        return None
    return collector.trajectory(*joined(student, kept, added), stopped=True)


def joined(student: Trajectory, kept: int, added: Sequence[int]):
    """(tokens, logprobs, from_teacher, was_read) of `kept` student tokens, then the
    teacher's."""
    return (
        (*student.tokens[:kept], *added),
        (*student.logprobs[:kept], *[0.0] * len(added)),
        (*student.from_teacher[:kept], *[True] * len(added)),
        (*student.was_read[:kept], *[False] * len(added)),
    )


def candidate_rewards(collector, problems, candidates) -> list[float]:
    """Rewards of the candidates; 0 where there is none."""
    there = [i for i, candidate in enumerate(candidates) if candidate is not None]
    found = collector.rewards(
        [problems[i] for i in there], [candidates[i] for i in there]
    )
    rewards = [0.0] * len(candidates)
    for i, reward in zip(there, found, strict=True):
        rewards[i] = reward
    return rewards


def with_final_verdicts(collector, rollouts, problems, *, seed: int) -> list[Rollout]:
    """Judges what replaced a trajectory, where step credit needs the scores."""
    if collector.rules.credit == "trajectory":
        return rollouts
    replaced = [i for i, rollout in enumerate(rollouts) if rollout.replaced]
    verdicts = collector.judge(
        [problems[i] for i in replaced],
        [rollouts[i].final for i in replaced],
        seed=derive(seed, "final"),
    )
    for i, verdict in zip(replaced, verdicts, strict=True):
        rollouts[i] = dataclasses.replace(rollouts[i], final_verdict=verdict)
    return rollouts


def step_by_step(
    collector, drafts, problems, prompts, generate, *, seed: int
) -> list[Rollout]:
    """Rewrites the first rejected step, lets the student go on and judges again, until
    it is accepted or `has_a_round` says no.

    A step of the teacher's is not rejected: it would only be asked for once more.
    """
    # In these, `student`, `verdict` and `accepted` are of the latest round.
    latest = list(drafts)
    for number in itertools.count():
        pending = [
            i for i, draft in enumerate(latest) if has_a_round(collector, draft, number)
        ]
        if not pending:
            break
        parts = [[x[i] for i in pending] for x in (latest, problems, prompts)]
        after = one_round(collector, *parts, generate, seed=derive(seed, number))
        for i, draft in zip(pending, after, strict=True):
            latest[i] = draft
    return [
        dataclasses.replace(
            draft,
            final=last.final,
            final_verdict=last.final_verdict,
            reward_after=last.reward_after,
            failed_demonstrations=last.failed_demonstrations,
        )
        for draft, last in zip(drafts, latest, strict=True)
    ]


def has_a_round(collector, draft: Rollout, number: int) -> bool:
    """Whether one more step of a draft is rewritten in round `number`.

    Where the threshold rejects all, it takes as many rounds as there are steps: only
    failures are bounded.
    """
    if draft.accepted or not draft.student.own_steps:
        return False
    rounds = collector.rules.max_replaced_steps
    if collector.rejects_all and rounds:
        tries = max(rounds, collector.rules.demonstration_tries)
        return draft.failed_demonstrations < tries
    return number < rounds


def one_round(
    collector, drafts, problems, prompts, generate, *, seed: int
) -> list[Rollout]:
    """The drafts with one step more that is the teacher's, and a new verdict; or with
    one more failure."""
    latest = list(drafts)
    found = with_teacher_step(
        collector, drafts, problems, prompts, generate, seed=derive(seed, "go")
    )
    done = [i for i, trajectory in enumerate(found) if trajectory is not None]
    for i in set(range(len(drafts))) - set(done):
        latest[i] = failed(drafts[i])
    asked, trajectories = [[x[i] for i in done] for x in (problems, found)]
    rewards = collector.rewards(asked, trajectories)
    verdicts = collector.judge(asked, trajectories, seed=derive(seed, "score"))
    own = [
        verdict_on(verdict, new.own_steps, aggregation=collector.rules.step_aggregation)
        for verdict, new in zip(verdicts, trajectories, strict=True)
    ]
    accepted = collector.accept(own, rewards, seed=derive(seed, "accept"))
    rounds = zip(trajectories, verdicts, accepted, rewards, strict=True)
    for i, (new, verdict, ok, reward) in zip(done, rounds, strict=True):
        latest[i] = dataclasses.replace(
            drafts[i], student=new, verdict=verdict, accepted=ok,
            final=new, final_verdict=verdict, reward_after=reward,
        )  # fmt: skip
    return latest


def with_teacher_step(
    collector, drafts, problems, prompts, generate, *, seed: int
) -> list[Trajectory | None]:
    """For each draft: the accepted prefix, one step of the teacher's, and what the
    student makes of them, unless that step was the teacher's last; None where the
    teacher gave no step that fits."""
    kept = [kept_tokens(draft, collector.rules) for draft in drafts]
    texts = collector.demonstrated_steps(
        [
            DemonstrationRequest(
                problem.asked,
                collector.text(draft.student, n),
                draft.failed_demonstrations,
            )
            for problem, draft, n in zip(problems, drafts, kept, strict=True)
        ],
        seed=seed,
    )
    openings = {
        i: collector.trajectory(*joined(drafts[i].student, n, step), stopped=False)
        for i, (n, text) in enumerate(zip(kept, texts, strict=True))
        if (step := collector.first_step(text, n))
    }
    asked, opened = [[x[i] for i in openings] for x in (problems, prompts)]
    continued = collector.continued(
        list(openings.values()), asked, opened, generate, seed=derive(seed, "student")
    )
    trajectories = [None] * len(drafts)
    for i, trajectory in zip(openings, continued, strict=True):
        trajectories[i] = trajectory
    return trajectories

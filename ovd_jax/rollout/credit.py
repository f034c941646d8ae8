"""From rewards and scores to an advantage for every step (eqs. 3 and 4)."""

import statistics
from collections.abc import Sequence

from ovd_jax.errors import UserError
from ovd_jax.rollout.policy import Baseline, Credit
from ovd_jax.rollout.trajectory import Group, Verdict


def step_rewards(
    verdict: Verdict,
    outcome: float,
    steps: int,
    *,
    credit: Credit,
    weight: float,
    levels: int,
) -> list[float]:
    """R_k for each of a trajectory's steps (eq. 3).

    `trajectory`: the reward for every step; `step`: the step's score / (levels - 1);
    `hybrid`: `weight` times the former plus 1 - `weight` times the latter.
    """
    if credit == "trajectory":
        return [outcome] * steps
    scaled = [score.value / (levels - 1) for score in verdict.steps]
    if credit == "step":
        return scaled
    if credit == "hybrid":
        return [weight * outcome + (1 - weight) * value for value in scaled]
    raise UserError(f"credit {credit!r} is not one of trajectory, step, hybrid.")


def group_advantages(
    group: Group,
    *,
    credit: Credit,
    credit_weight: float,
    levels: int,
    baseline: Baseline,
    scale_by_std: bool,
    eps: float = 1e-6,
) -> list[list[float]]:
    """Standardized rewards of each step of each rollout, G lists (GRPO, eq. 4).

    The mean and standard deviation (ddof 1) are those of the rewards `after`
    replacement (Algorithm 1), `before` it, or of the `union` of both: with a good
    teacher every reward after replacement is 1, and only the other two distinguish the
    teacher's trajectories from the student's. `leave_one_out` takes for each the mean
    of the others (RLOO, arXiv:2402.14740). Equal rewards give zeros. An empty group has
    no advantages.
    """

    if not group.rollouts:
        return []

    def rewards(verdict, outcome, trajectory):
        return step_rewards(
            verdict, outcome, len(trajectory.step_ends),
            credit=credit, weight=credit_weight, levels=levels,
        )  # fmt: skip

    after = [rewards(r.final_verdict, r.reward_after, r.final) for r in group.rollouts]
    before = [rewards(r.verdict, r.reward_before, r.student) for r in group.rollouts]
    replaced = [x for x, r in zip(after, group.rollouts, strict=True) if r.replaced]
    references = {
        "after": after, "before": before, "union": [*before, *replaced],
        "leave_one_out": after,
    }  # fmt: skip
    if baseline not in references:
        raise UserError(f"baseline {baseline!r} is not one of {', '.join(references)}.")
    counted = slice(1) if credit == "trajectory" else slice(None)  # once, or every step
    values = [value for steps in references[baseline] for value in steps[counted]]
    mean, scale = center_and_scale(values, eps)
    means = [mean] * len(after)
    if baseline == "leave_one_out" and len(after) > 1:
        means = means_of_others([steps[counted] for steps in after])
    return standardized(after, means, scale if scale_by_std else 1.0)


def standardized(
    rewards: Sequence[Sequence[float]], means: Sequence[float], scale: float
) -> list[list[float]]:
    """(reward - mean) / scale of each step, with a mean for each rollout."""
    return [
        [(value - mean) / scale for value in steps]
        for steps, mean in zip(rewards, means, strict=True)
    ]


def means_of_others(rewards: Sequence[Sequence[float]]) -> list[float]:
    """For each trajectory the mean reward of all steps of the others."""
    return [
        statistics.fmean(
            value for j, steps in enumerate(rewards) if j != i for value in steps
        )
        for i in range(len(rewards))
    ]


def center_and_scale(values: Sequence[float], eps: float) -> tuple[float, float]:
    """Mean, and standard deviation + eps; the scale is 1 if all values are equal.

    Otherwise a teacher's reward of 1 over a baseline of zeros would weigh 1 / eps.
    """
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return mean, spread + eps if spread > eps else 1.0

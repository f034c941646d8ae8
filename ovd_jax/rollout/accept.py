"""Acceptance in verbal rejection sampling (section 3.3, eqs. 5 and 24-25)."""

import math
from collections.abc import Sequence

from ovd_jax.errors import UserError
from ovd_jax.rollout.policy import Aggregation, Rejection
from ovd_jax.rollout.trajectory import Verdict
from ovd_jax.teacher.base import Score


def make_verdict(
    steps: Sequence[Score], whole: Score | None, *, aggregation: Aggregation
) -> Verdict:
    """Combines the scores of a trajectory into one value S.

    `aggregation` takes the minimum, mean or last of the steps. If the whole was scored
    too (granularity `hybrid`), S is the lower of both.
    """
    values = [score.value for score in steps]
    parts = [] if whole is None else [whole.value]
    if values:
        parts.append(aggregate(values, aggregation))
    return Verdict(tuple(steps), whole, min(parts))


def aggregate(values: Sequence[float], how: Aggregation) -> float:
    """The `min`, `mean` or `last` of `values`."""
    if how == "min":
        return min(values)
    if how == "mean":
        return sum(values) / len(values)
    if how == "last":
        return values[-1]
    raise UserError(f"step aggregation {how!r} is not one of min, mean, last.")


def is_accepted(
    value: float,
    *,
    correct: bool,
    rule: Rejection,
    threshold: float,
    levels: int,
    beta: float,
    draw: float,
) -> bool:
    """True if a trajectory with score `value` is kept.

    `score`: S >= threshold (eq. 5): 0 keeps all trajectories, `levels` none.
    `score_or_incorrect`: rejects wrong answers too (Algorithm 1).
    `soft`: with probability min(1, exp(S / beta) / M), M = exp((levels - 1) / beta), so
    the best score is always kept (A.1.1); `draw` is uniform on [0, 1).
    """
    if rule == "score":
        return value >= threshold
    if rule == "score_or_incorrect":
        return value >= threshold and correct
    if rule == "soft":
        return draw < min(1.0, math.exp((value - (levels - 1)) / beta))
    raise UserError(
        f"rejection rule {rule!r} is not one of score, score_or_incorrect, soft."
    )


def verdict_on(
    verdict: Verdict | None, steps: Sequence[int], *, aggregation: Aggregation
) -> Verdict | None:
    """The verdict from the scores of only these steps; infinite if there are none, None
    without a verdict."""
    if verdict is None or not verdict.answered or len(steps) == len(verdict.steps):
        return verdict
    scores = [verdict.steps[index] for index in steps]
    if not scores and verdict.whole is None:
        return Verdict((), None, math.inf)
    return make_verdict(scores, verdict.whole, aggregation=aggregation)


def first_rejected_step(
    verdict: Verdict, threshold: float, *, among: Sequence[int]
) -> int:
    """The first of the steps `among` under `threshold`, or the lowest one.

    The latter applies if the answer or the score of the whole was rejected.
    """
    values = {index: verdict.steps[index].value for index in among}
    under = [index for index, value in values.items() if value < threshold]
    return under[0] if under else min(values, key=lambda index: values[index])

"""Measures of a judge on the student's own samples."""

import dataclasses
from collections.abc import Sequence

from ovd_jax.client.accounting import auc
from ovd_jax.rollout.accept import aggregate
from ovd_jax.rollout.buffer import mean, share
from ovd_jax.rollout.policy import Aggregation
from ovd_jax.teacher.base import Score

_BINS = 10


@dataclasses.dataclass(frozen=True)
class JudgedSample:
    """A sample of the student with its verdict."""

    value: float  # compared with the threshold
    expected: float  # the same, from mean scores
    right: bool  # its reward is 1
    steps: tuple[tuple[Score, bool], ...]  # with True for right steps;
    # empty if that is unknown
    scores: tuple[Score, ...]  # all of the verdict: of steps, of the whole


def expected(score: Score) -> float:
    """The mean of a score's distribution."""
    return sum(level * p for level, p in enumerate(score.probs))


def expected_value(
    scores: Sequence[Score], whole: Score | None, how: Aggregation
) -> float:
    """The value of `make_verdict`, from mean scores."""
    values = [aggregate([expected(score) for score in scores], how)] if scores else []
    return min(values + ([expected(whole)] if whole else []))


def chance(score: Score, level: int) -> float:
    """The probability that the judge gives to scores from `level` up."""
    return min(1.0, sum(score.probs[level:]))


def acceptance(samples: Sequence[JudgedSample], threshold: float) -> dict:
    """Precision and recall of acceptance at a threshold; None without samples to
    count."""
    outcomes = [(x.value >= threshold, x.right) for x in samples]
    precision = share(right for accepted, right in outcomes if accepted)
    recall = share(accepted for accepted, right in outcomes if right)
    both = (precision or 0.0) + (recall or 0.0)
    return {
        "threshold": threshold,
        "accepted": mean(accepted for accepted, _ in outcomes),
        "accepted_right": precision,
        "right_accepted": recall,
        "f1": 2 * precision * recall / both if precision and recall else 0.0,
    }


def separation(samples: Sequence[JudgedSample], level: int) -> dict:
    """AUC of steps and of solutions by the probability of scores from `level` up, a
    solution's being its least certain score's.

    On a scale with content right steps differ from each other, and wrong ones too, so
    that mean scores tell right from wrong less well than this does.
    """
    steps = [pair for x in samples for pair in x.steps]
    return {
        "auc_steps": area([(chance(score, level), right) for score, right in steps]),
        "auc_solutions": area(
            [(min(chance(y, level) for y in x.scores), x.right) for x in samples]
        ),
    }


def measures(samples: Sequence[JudgedSample], names: Sequence[float]) -> dict:
    """AUC by mean scores, acceptance and AUC at each threshold, the best threshold,
    calibration.

    Acceptance uses the scores as the rule reads them. The best threshold has the
    highest F1, the lowest of equals; calibration is that of the probability of a score
    at or above it. `names` has each level's threshold in the scale of the config, and
    one that rejects all: see `TeacherPrompt.thresholds`.
    """
    levels = range(1, len(names) - 1)
    rows = [acceptance(samples, level) | separation(samples, level) for level in levels]
    best = max(levels, key=lambda level: (rows[level - 1]["f1"], -level))
    steps = [pair for x in samples for pair in x.steps]
    bins = reliability(steps, best)
    return {
        "solutions": len(samples),
        "accuracy": mean(x.right for x in samples),
        "right_with_wrong_steps": share(
            not all(right for _, right in x.steps) for x in samples if x.right
        ),
        "steps": len(steps),
        "steps_right": share(right for _, right in steps),
        "auc_steps": area([(expected(score), right) for score, right in steps]),
        "auc_solutions": area([(x.expected, x.right) for x in samples]),
        "recommended_threshold": names[best],
        "calibration_error": calibration_error(bins),
        "reliability": bins,
        "thresholds": [
            row | {"threshold": names[level]}
            for level, row in zip(levels, rows, strict=True)
        ],
    }


def area(pairs: Sequence[tuple[float, bool]]) -> float | None:
    """The area under the ROC curve of (score, is right)."""
    right, wrong = ([x for x, y in pairs if y == side] for side in (True, False))
    return auc(right, wrong)


def reliability(steps: Sequence[tuple[Score, bool]], threshold: int) -> list[dict]:
    """Ten bins of steps by the judge's probability of a score of at least `threshold`:
    count, mean probability and share of right steps."""
    bins = [[] for _ in range(_BINS)]
    for score, right in steps:
        claimed = chance(score, threshold)
        bins[min(_BINS - 1, int(claimed * _BINS))].append((claimed, right))
    return [
        {
            "count": len(rows),
            "claimed": mean(claimed for claimed, _ in rows),
            "right": mean(right for _, right in rows),
        }
        for rows in bins
        if rows
    ]


def calibration_error(bins: Sequence[dict]) -> float | None:
    """The expected calibration error: the mean distance of claim and share over steps;
    None without steps."""
    total = sum(row["count"] for row in bins)
    if not total:
        return None
    distances = (row["count"] * abs(row["claimed"] - row["right"]) for row in bins)
    return sum(distances) / total

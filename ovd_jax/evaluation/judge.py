"""How a judge does on what a student samples: whom it accepts, and who is right."""

import dataclasses
from collections.abc import Sequence

from ovd_jax.client.accounting import auc
from ovd_jax.rollout.accept import aggregate
from ovd_jax.rollout.buffer import mean, share
from ovd_jax.teacher.base import Score

_BINS = 10


@dataclasses.dataclass(frozen=True)
class JudgedSample:
    """A solution that the student sampled, with its verdict."""

    value: float  # what the threshold is compared with
    expected: float  # the same of the mean scores
    right: bool  # its reward is 1
    steps: tuple[tuple[Score, bool], ...]  # each with whether the step is right; may be
    # empty, where nobody knows


def expected(score: Score) -> float:
    """The mean of a score's distribution."""
    return sum(level * p for level, p in enumerate(score.probs))


def expected_value(scores: Sequence[Score], whole: Score | None, how: str) -> float:
    """As `make_verdict`, of mean scores."""
    values = [aggregate([expected(score) for score in scores], how)] if scores else []
    return min(values + ([expected(whole)] if whole else []))


def acceptance(samples: Sequence[JudgedSample], threshold: float) -> dict:
    """Precision and recall of acceptance at a threshold; None where nothing counts."""
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


def measures(samples: Sequence[JudgedSample], names: Sequence[float]) -> dict:
    """AUC of steps and of solutions, by mean scores; acceptance at each threshold, by
    scores as they are read; the threshold whose acceptance has the best F1 (the lowest
    of equals), and how well the probability of a score from there up is calibrated.

    `names` has each level's threshold as a config would have it, and one that rejects
    all: see `TeacherPrompt.thresholds`."""
    levels = range(1, len(names) - 1)
    rows = [acceptance(samples, level) for level in levels]
    best = max(levels, key=lambda level: (rows[level - 1]["f1"], -level))
    steps = [pair for x in samples for pair in x.steps]
    bins = reliability(steps, best)
    return {
        "solutions": len(samples),
        "accuracy": mean(x.right for x in samples),
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
    """Steps in ten bins of the probability that the judge gives to scores from
    `threshold` up: how many, the mean probability, and the share that is right."""
    bins = [[] for _ in range(_BINS)]
    for score, right in steps:
        claimed = min(1.0, sum(score.probs[threshold:]))
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
    """The expected calibration error: the mean distance of claim and share, over
    steps."""
    total = sum(row["count"] for row in bins)
    if not total:
        return None
    distances = (row["count"] * abs(row["claimed"] - row["right"]) for row in bins)
    return sum(distances) / total

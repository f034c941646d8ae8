"""Measures of an evaluation: accuracy, avg@k, pass@k and their intervals."""

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np

from ovd_jax.conversation.metrics import by_source
from ovd_jax.evaluation.attempts import Evaluated

RESAMPLES = 2000
LEVEL = 0.95


def accuracy(results: Sequence[Evaluated]) -> float:
    """The mean reward over all attempts (avg@k)."""
    return statistics.fmean(statistics.fmean(r.rewards) for r in results)


def grade_metrics(results: Sequence[Evaluated]) -> dict[str, float]:
    """The means of the task's metrics over all attempts, and by source if the problems
    have several, as in "em/nq"."""
    found = [
        (result.problem.source, grade.metrics)
        for result in results
        for grade in result.grades
    ]
    names = list(found[0][1]) if found else []
    means = {n: statistics.fmean(values[n] for _, values in found) for n in names}
    return means | by_source(found, names)


def pass_at(k: int, rewards: Sequence[float]) -> float:
    """The probability that one of k attempts is right, unbiased (arXiv:2107.03374, eq.
    1)."""
    n, right = len(rewards), sum(reward == 1.0 for reward in rewards)
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def measures(samples: int) -> dict[str, Callable[[Evaluated], float]]:
    """The measures of each problem with so many attempts; reports give their means."""
    found = {f"avg@{samples}": lambda result: statistics.fmean(result.rewards)}
    for k in sorted({*powers_of_two(samples), samples}) if samples > 1 else ():
        found[f"pass@{k}"] = lambda result, k=k: pass_at(k, result.rewards)
    return found


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [2**i for i in range(most.bit_length())]


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean, over problems."""
    return percentiles(resampled_means(values, seed=seed))


def mean_interval(
    sets: Sequence[Sequence[float]], *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of several sets' means; problems are
    resampled within sets."""
    means = [resampled_means(values, seed=seed + i) for i, values in enumerate(sets)]
    return percentiles(np.mean(means, axis=0))


def resampled_means(values: Sequence[float], *, seed: int) -> np.ndarray:
    """Means of `RESAMPLES` resamples with replacement.

    The counts of each problem are drawn as a multinomial, which is cheaper than drawing
    the problems.
    """
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), counts / len(values), size=RESAMPLES)
    return drawn @ distinct / len(values)


def percentiles(means: np.ndarray) -> tuple[float, float]:
    """The bounds that hold the central `LEVEL` of the means."""
    outside = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [outside, 100 - outside])
    return float(low), float(high)

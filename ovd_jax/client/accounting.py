"""Counts the costs of a teacher: requests, tokens, latencies and waiting time."""

import bisect
import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

LEFT_OUT = (
    "claims_removed",  # self-given scores
    "slots_cut",  # texts cut in the middle: too long
    "prefixes_too_long",  # demonstrations not requested
)
_COUNTS = (
    "teacher_requests",  # answered ones
    "teacher_retries",
    "teacher_unanswered",  # questions without an answer
    "teacher_cache_hits",
    *(f"teacher_{name}" for name in LEFT_OUT),
    "teacher_tokens_in",
    "teacher_tokens_out",
)


class Accounting:
    """Counts from any thread; `take` returns the counts and resets them."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = Counter()
        self._latencies: list[float] = []
        self._waited = self._worked = 0.0
        self._out, self._since = 0, 0.0  # questions asked and open; since when any is

    def count(self, **amounts: int) -> None:
        """Adds to counts by their names, without `teacher_`."""
        with self._lock:
            self._counts.update({f"teacher_{k}": n for k, n in amounts.items()})

    def answered(self, seconds: float, *, tokens_in: int, tokens_out: int) -> None:
        """Counts one answered request."""
        self.count(requests=1, tokens_in=tokens_in, tokens_out=tokens_out)
        with self._lock:
            self._latencies.append(seconds)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Adds the block's wall time to `seconds_teacher_waited`."""
        started = time.perf_counter()
        self.asked()
        try:
            yield
        finally:
            self.done()
            with self._lock:
                self._waited += time.perf_counter() - started

    def asked(self) -> None:
        """Marks the start of a request; wall time with open requests is
        `seconds_teacher`."""
        with self._lock:
            self._tick()
            self._out += 1

    def done(self) -> None:
        """Marks the end of a request."""
        with self._lock:
            self._tick()
            self._out -= 1

    def _tick(self) -> None:
        now = time.perf_counter()
        self._worked += (now - self._since) if self._out else 0.0
        self._since = now

    def take(self) -> dict[str, float | None]:
        """Counts, latencies of requests and seconds since the last call."""
        with self._lock:
            self._tick()
            counts, latencies = self._counts, self._latencies
            waited, worked = self._waited, self._worked
            self._counts, self._latencies = Counter(), []
            self._waited = self._worked = 0.0
        found: dict[str, float | None] = {name: counts[name] for name in _COUNTS}
        return found | {
            "teacher_latency_p50": percentile(latencies, 50),
            "teacher_latency_p99": percentile(latencies, 99),
            "seconds_teacher": worked,
            "seconds_teacher_waited": waited,
        }


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest of `values` that at least `percent` % of them do not exceed; None
    without values."""
    if not values:
        return None
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def entropy(counts: Sequence[int]) -> float:
    """The entropy of a histogram, in nats: 0 if all counts are in one bin."""
    total = sum(counts)
    return -sum(n / total * math.log(n / total) for n in counts if n)


def auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """The probability that a right one scores above a wrong one, ties counting half;
    None without one of both."""
    if not right or not wrong:
        return None
    below = sorted(wrong)
    wins = sum(bisect.bisect_left(below, r) + bisect.bisect(below, r) for r in right)
    return wins / 2 / (len(right) * len(wrong))

"""Judging answers against gold answers, many at a time.

Most are settled in this process by comparing texts and numbers (compare.py); for the
rest, algebra, a bounded number of worker processes is kept (algebra.py).
"""

import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

from ovd_jax.tasks.grading.algebra import Worker
from ovd_jax.tasks.grading.equality import TOLERANCE, Judgement, Rule, compare

MAX_WORKERS = 8  # each holds sympy, 0.1 GB


class NeedsAlgebra(Exception):
    """A pair that comparing texts and numbers does not settle."""


def refuse(answer: str, gold: str) -> str:
    """Stands for algebra where none is to be done yet."""
    raise NeedsAlgebra


class Grader:
    """Judges answers; owns the worker processes, which end with it or the program.

    An item that takes a worker longer than `timeout_s`, or kills it, is wrong, and the
    next one gets a new worker. `workers` bounds how many there are; by default as many
    as cores, `MAX_WORKERS` at most. They start when they are needed. `tolerance` is how
    far a decimal may be from a gold that is no integer, as a share of it.
    """

    def __init__(
        self,
        timeout_s: float = 2.0,
        workers: int = 0,
        tolerance: float = float(TOLERANCE),
    ):
        self._tolerance = Fraction(str(tolerance))
        count = workers or min(os.cpu_count() or 1, MAX_WORKERS)
        self.workers = [Worker(timeout_s, tolerance) for _ in range(count)]
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()  # warm ones first
        for worker in reversed(self.workers):
            self._free.put(worker)
        self._lock = threading.Lock()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Stops the workers; grading again starts others."""
        with self._lock:
            for worker in self.workers:
                worker.close()

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """1.0 for each (answer, gold) pair whose two sides are equal, else 0.0."""
        return [float(judgement.equal) for judgement in self.judge(pairs)]

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Whether the two sides of each (answer, gold) pair are equal, and why."""
        with self._lock:
            found: dict[tuple[str, str], str] = {}
            hard = []
            for pair in dict.fromkeys(pairs):
                try:
                    found[pair] = compare(*pair, Rule(refuse, self._tolerance))
                except NeedsAlgebra:
                    hard.append(pair)
            found |= zip(hard, self._with_algebra(hard), strict=True)
        return [Judgement(found[pair]) for pair in pairs]

    def _with_algebra(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        threads = min(len(self.workers), len(pairs))
        if threads < 2:
            return [self._compare(pair) for pair in pairs]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._compare, pairs))

    def _compare(self, pair: tuple[str, str]) -> str:
        worker = self._free.get()
        try:
            return compare(*pair, Rule(worker.ask, self._tolerance))
        finally:
            self._free.put(worker)

"""Objects that process 0 calls for all processes.

Each wrapper passes the calls that may differ between processes, such as those of a
remote teacher, to process 0 and gives every process its result, or raises its
exception. All processes must make the same calls in the same order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ovd_jax.multihost.processes import broadcast_result
from ovd_jax.tasks.base import Grade, Problem, TaskWrapper
from ovd_jax.teacher.base import (
    DemonstrationRequest,
    RequestKey,
    Score,
    ScoreRequest,
    Teacher,
)
from ovd_jax.teacher.served_logprobs import ServedTokens


def shared(wrapper: Callable, target: object) -> Any:
    """`wrapper(target)` if there are several processes, else `target` itself."""
    return wrapper(target) if jax.process_count() > 1 else target


class SharedTask(TaskWrapper):
    """A task that is graded on process 0: grading may run against the clock."""

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """The task's rewards."""
        return broadcast_result(self._task.rewards, problems, texts)

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The task's grades."""
        return broadcast_result(self._task.grade, problems, texts)


class SharedTeacher:
    """A teacher that process 0 asks."""

    def __init__(self, teacher: Teacher):
        self._teacher: Any = teacher  # may also have `name` and `close`
        self.levels = teacher.levels

    @property
    def name(self) -> str:
        """The name of the served model."""
        return self._teacher.name

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[Score | None]:
        """The teacher's scores."""
        return broadcast_result(
            self._teacher.score, requests, seed=seed, request_keys=request_keys
        )

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[str | None]:
        """The teacher's demonstrations."""
        return broadcast_result(
            self._teacher.demonstrate, requests, seed=seed, request_keys=request_keys
        )

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """The teacher's feedback."""
        return broadcast_result(self._teacher.feedback, requests, seed=seed)

    def metrics(self) -> dict[str, float | None]:
        """The metrics of this process."""
        return self._teacher.metrics()

    def close(self) -> None:
        """Ends the teacher's connections, if it has any."""
        if hasattr(self._teacher, "close"):
            self._teacher.close()


class SharedTokenTeacher:
    """A served token-level teacher that process 0 asks."""

    def __init__(self, token_teacher: ServedTokens):
        self._read = token_teacher.read
        self.metrics = token_teacher.metrics
        self.close = token_teacher.close

    def read(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[list[Mapping[int, float]] | None]:
        """The teacher's log-probabilities: see `ServedTokens`."""
        return broadcast_result(self._read, rows)


class SharedCalls:
    """Slow calls, such as searches, that run in threads of process 0."""

    def __init__(self, calls):
        self._calls = calls
        self.begin = calls.begin
        self.end = calls.end
        self.metrics = calls.metrics

    def start(self, calls: Sequence[tuple]) -> None:
        """Starts the calls, each under its key."""
        broadcast_result(self._calls.start, calls)

    def take(self, keys: Sequence[tuple]) -> list[tuple]:
        """The results of calls that were started."""
        return broadcast_result(self._calls.take, keys)


class SharedCache:
    """Attempts on the disk of process 0."""

    def __init__(self, cache):
        self._cache = cache

    def get(self, key: Mapping) -> Mapping | None:
        """The value of a key, None if there is none."""
        return broadcast_result(self._cache.get, key)

    def put(self, key: Mapping, value: Mapping) -> None:
        """Stores a value."""
        broadcast_result(self._cache.put, key, value)

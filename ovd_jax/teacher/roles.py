"""A teacher of two models."""

from collections.abc import Sequence

from ovd_jax.teacher.base import (
    DemonstrationRequest,
    RequestKey,
    Score,
    ScoreRequest,
    Teacher,
)


class Roles:
    """The `scorer` judges; the `continuer` writes replacements."""

    def __init__(self, scorer: Teacher, continuer: Teacher):
        self._scorer = scorer
        self._continuer = continuer

    def __getattr__(self, name: str):
        return getattr(self._scorer, name)  # such as `begin`

    @property
    def levels(self) -> int:
        """The scorer's levels."""
        return self._scorer.levels

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[Score | None]:
        """Delegates to the scorer."""
        return self._scorer.score(requests, seed=seed, request_keys=request_keys)

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """Delegates to the scorer."""
        return self._scorer.feedback(requests, seed=seed)

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[str | None]:
        """Delegates to the continuer."""
        return self._continuer.demonstrate(
            requests, seed=seed, request_keys=request_keys
        )

    def metrics(self) -> dict[str, float | None]:
        """The metrics of both, the continuer's under its own names; the seconds of
        `teacher` are sums."""
        found, others = self._scorer.metrics(), self._continuer.metrics()
        for name, value in others.items():
            if name.startswith("seconds"):
                found[name] = (found.get(name) or 0.0) + (value or 0.0)
            else:
                found[name.replace("teacher", "continuer")] = value
        return found

    def close(self) -> None:
        """Ends the connections of both."""
        for teacher in (self._scorer, self._continuer):
            if close := getattr(teacher, "close", None):
                close()

"""Searches that are started, and taken when somebody needs what they found."""

import concurrent.futures
import time
from collections.abc import Mapping, Sequence

from ovd_jax.search.base import Document, Query, SearchBackend
from ovd_jax.seeds import derive


class SearchThreads:
    """Runs searches in threads, so that what is computed meanwhile hides them.

    Each search is a call of its own with a seed of its own, so that what it finds does
    not depend on which others were started beside it.
    """

    def __init__(self, backend: SearchBackend, *, workers: int = 32):
        self._backend = backend
        self._threads = concurrent.futures.ThreadPoolExecutor(workers, "search")
        self._running: dict[tuple, concurrent.futures.Future] = {}
        self._waited = 0.0

    def start(self, searches: Sequence[tuple[tuple, Query, int]]) -> None:
        """Starts (key, query, seed) each; a key must not be under way."""
        for key, query, seed in searches:
            if key in self._running:
                raise ValueError(f"A search under {key} has not been taken yet.")
            self._running[key] = self._threads.submit(
                self._backend.search, [query], seed=seed
            )

    @property
    def identity(self) -> Mapping:
        """All that decides what is found but query and seed, as JSON."""
        return self._backend.identity

    def begin(self, step: int) -> None:
        """What is searched from now on belongs to this step of training."""
        self._backend.begin(step)

    def take(self, keys: Sequence[tuple]) -> list[tuple[Document, ...]]:
        """What was found under each key, once all of it is there. Raises SearchError;
        then nothing is under way any more."""
        started = time.perf_counter()
        try:
            return [self._running.pop(key).result()[0] for key in keys]
        except BaseException:
            for future in self._running.values():
                future.cancel()
            self._running.clear()
            raise
        finally:
            self._waited += time.perf_counter() - started

    def metrics(self) -> dict[str, float]:
        """The backend's, and the seconds for which nothing but a search was waited for,
        since the last call."""
        waited, self._waited = self._waited, 0.0
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class SearchBatch:
    """Runs searches when they are taken, all of them in one call: for an engine that is
    a model in this process, which would gain nothing from threads."""

    def __init__(self, backend: SearchBackend):
        self._backend = backend
        self._started: dict[tuple, tuple[Query, int]] = {}
        self._waited = 0.0

    def start(self, searches: Sequence[tuple[tuple, Query, int]]) -> None:
        """Notes (key, query, seed) each."""
        self._started |= {key: (query, seed) for key, query, seed in searches}

    @property
    def identity(self) -> Mapping:
        """All that decides what is found but query and seed, as JSON."""
        return self._backend.identity

    def begin(self, step: int) -> None:
        """What is searched from now on belongs to this step of training."""
        self._backend.begin(step)

    def take(self, keys: Sequence[tuple]) -> list[tuple[Document, ...]]:
        """What is found under each key. Raises SearchError."""
        if not keys:
            return []
        queries, seeds = zip(*[self._started.pop(key) for key in keys], strict=True)
        started = time.perf_counter()
        try:
            return self._backend.search(list(queries), seed=derive(0, *seeds))
        finally:
            self._waited += time.perf_counter() - started

    def metrics(self) -> dict[str, float]:
        """As those of `SearchThreads`; all of a search is waited for here."""
        waited, self._waited = self._waited, 0.0
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Nothing runs."""

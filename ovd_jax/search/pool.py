"""Searches that are started, and taken when somebody needs what they found."""

import functools
import time
from collections.abc import Mapping, Sequence

from ovd_jax.search.base import Document, Query, SearchBackend
from ovd_jax.threads import Background, DaemonThreads


class SearchThreads:
    """Runs searches in threads, so that what is computed meanwhile hides them."""

    def __init__(self, backend: SearchBackend, threads: DaemonThreads | None = None):
        self._backend = backend
        self._calls = Background(threads or DaemonThreads(workers=32))

    def view(self) -> "SearchThreads":
        """The same engine and threads for another user: an error in the searches of
        one leaves those of the other alone, and each has metrics of its own."""
        return SearchThreads(self._backend.view(), self._calls.threads)

    def start(self, searches: Sequence[tuple[tuple, Query, int]]) -> None:
        """Starts (key, query, seed) each; a key must not be under way."""
        for key, query, seed in searches:
            search = functools.partial(self._backend.search, [query], seeds=[seed])
            self._calls.start(key, search)

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
        return [documents for (documents,) in self._calls.take(keys)]

    def end(self, error: BaseException) -> None:
        """Has `take` raise `error`, now and from now on, rather than wait for a search:
        what they are for has failed. Safe to call from another thread."""
        self._calls.end(error)

    def metrics(self) -> dict[str, float]:
        """The backend's, and the seconds for which nothing but a search was waited for,
        since the last call."""
        waited = self._calls.seconds_waited()
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Ends the threads and the engine, for all views."""
        self._calls.threads.close()
        self._backend.close()


class SearchBatch:
    """Runs searches when they are taken, all of them in one call: for an engine that is
    a model in this process, which would gain nothing from threads."""

    def __init__(self, backend: SearchBackend):
        self._backend = backend
        self._started: dict[tuple, tuple[Query, int]] = {}
        self._waited = 0.0

    def view(self) -> "SearchBatch":
        """As that of `SearchThreads`."""
        return SearchBatch(self._backend.view())

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
            return self._backend.search(queries, seeds=seeds)
        finally:
            self._waited += time.perf_counter() - started

    def end(self, error: BaseException) -> None:
        """Nothing: no search of this engine waits for a server."""

    def metrics(self) -> dict[str, float]:
        """As those of `SearchThreads`; all of a search is waited for here."""
        waited, self._waited = self._waited, 0.0
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Ends the engine."""
        self._backend.close()

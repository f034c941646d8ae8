"""Starts searches and returns their documents later."""

import functools
import time
from collections.abc import Mapping, Sequence

from ovd_jax.search.base import Document, Query, SearchBackend
from ovd_jax.threads import Background, DaemonThreads


class _Searches:
    """What both kinds of pool ask of their backend."""

    _backend: SearchBackend

    @property
    def identity(self) -> Mapping:
        """Everything that decides the documents besides query and seed, as JSON."""
        return self._backend.identity

    def begin(self, step: int) -> None:
        """Announces the training step of the following searches."""
        self._backend.begin(step)


class SearchThreads(_Searches):
    """Runs searches in threads, so that they overlap with computation."""

    def __init__(self, backend: SearchBackend, threads: DaemonThreads | None = None):
        self._backend = backend
        self._calls = Background(threads or DaemonThreads(workers=32))

    def view(self) -> "SearchThreads":
        """The same engine and threads with separate searches and metrics: an error in
        one view does not affect another."""
        return SearchThreads(self._backend.view(), self._calls.threads)

    def start(self, searches: Sequence[tuple[tuple, Query, int]]) -> None:
        """Starts each (key, query, seed); a key must not be pending."""
        for key, query, seed in searches:
            search = functools.partial(self._backend.search, [query], seeds=[seed])
            self._calls.start(key, search)

    def take(self, keys: Sequence[tuple]) -> list[tuple[Document, ...]]:
        """Waits for the documents of each key. Raises SearchError; no search is pending
        then."""
        return [documents for (documents,) in self._calls.take(keys)]

    def end(self, error: BaseException) -> None:
        """Makes `take` raise `error` from now on instead of waiting: the run has
        failed. Safe to call from another thread."""
        self._calls.end(error)

    def metrics(self) -> dict[str, float]:
        """The backend's metrics, and the seconds spent waiting for searches only, since
        the last call."""
        waited = self._calls.seconds_waited()
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Ends the threads and the engine, for all views."""
        self._calls.threads.close()
        self._backend.close()


class SearchBatch(_Searches):
    """Runs all searches in one call when they are taken: for an engine that is a model
    in this process, which threads would not speed up."""

    def __init__(self, backend: SearchBackend):
        self._backend = backend
        self._started: dict[tuple, tuple[Query, int]] = {}
        self._waited = 0.0

    def view(self) -> "SearchBatch":
        """As in `SearchThreads`."""
        return SearchBatch(self._backend.view())

    def start(self, searches: Sequence[tuple[tuple, Query, int]]) -> None:
        """Notes (key, query, seed) each."""
        self._started |= {key: (query, seed) for key, query, seed in searches}

    def take(self, keys: Sequence[tuple]) -> list[tuple[Document, ...]]:
        """The documents of each key. Raises SearchError."""
        if not keys:
            return []
        queries, seeds = zip(*[self._started.pop(key) for key in keys], strict=True)
        started = time.perf_counter()
        try:
            return self._backend.search(queries, seeds=seeds)
        finally:
            self._waited += time.perf_counter() - started

    def end(self, error: BaseException) -> None:
        """Does nothing: no search of this engine waits for a server."""

    def metrics(self) -> dict[str, float]:
        """As in `SearchThreads`; the whole search is waited for."""
        waited, self._waited = self._waited, 0.0
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Ends the engine."""
        self._backend.close()

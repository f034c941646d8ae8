"""Searches that are started, and taken when somebody needs what they found."""

import concurrent.futures
import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from ovd_jax.search.base import Document, Query, SearchBackend


class DaemonThreads:
    """Runs calls in up to `workers` threads, which no program waits for at its end: the
    threads of `ThreadPoolExecutor` keep it alive while they wait for a server."""

    def __init__(self, workers: int):
        self._workers = workers
        self._started = 0
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue = queue.SimpleQueue()

    def submit(self, call: Callable) -> concurrent.futures.Future:
        """The future result of `call()`."""
        future = concurrent.futures.Future()
        self._calls.put((future, call))
        with self._lock:
            if self._started < self._workers:
                self._started += 1
                threading.Thread(target=self._work, name="search", daemon=True).start()
        return future

    def close(self) -> None:
        """Cancels the calls that have not begun and ends the threads."""
        while not self._calls.empty():
            future, _ = self._calls.get()
            future.cancel()
        for _ in range(self._started):
            self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)


class SearchThreads:
    """Runs searches in threads, so that what is computed meanwhile hides them."""

    def __init__(self, backend: SearchBackend, threads: DaemonThreads | None = None):
        self._backend = backend
        self._threads = threads or DaemonThreads(workers=32)
        self._running: dict[tuple, concurrent.futures.Future] = {}
        self._ended: concurrent.futures.Future = concurrent.futures.Future()
        self._waited = 0.0

    def view(self) -> "SearchThreads":
        """The same engine and threads for another user: an error in the searches of
        one leaves those of the other alone, and each has metrics of its own."""
        return SearchThreads(self._backend.view(), self._threads)

    def start(self, searches: Sequence[tuple[tuple, Query, int]]) -> None:
        """Starts (key, query, seed) each; a key must not be under way."""
        for key, query, seed in searches:
            if key in self._running:
                raise ValueError(f"A search under {key} has not been taken yet.")
            search = functools.partial(self._backend.search, [query], seeds=[seed])
            self._running[key] = self._threads.submit(search)

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
            return [self._result(self._running.pop(key))[0] for key in keys]
        except BaseException:
            for future in self._running.values():
                future.cancel()
            self._running.clear()
            raise
        finally:
            self._waited += time.perf_counter() - started

    def end(self, error: BaseException) -> None:
        """Has `take` raise `error`, now and from now on, rather than wait for a search:
        what they are for has failed. Safe to call from another thread."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self._ended.set_exception(error)

    def _result(self, future: concurrent.futures.Future):
        concurrent.futures.wait(
            [future, self._ended], return_when=concurrent.futures.FIRST_COMPLETED
        )
        return future.result() if future.done() else self._ended.result()

    def metrics(self) -> dict[str, float]:
        """The backend's, and the seconds for which nothing but a search was waited for,
        since the last call."""
        waited, self._waited = self._waited, 0.0
        return self._backend.metrics() | {"seconds_search_waited": waited}

    def close(self) -> None:
        """Ends the threads and the engine, for all views."""
        self._threads.close()
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

"""Slow calls in threads: started now, taken when their results are needed."""

import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


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
                threading.Thread(target=self._work, name="call", daemon=True).start()
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


class Background:
    """Calls under way in `threads`, by key."""

    def __init__(self, threads: DaemonThreads):
        self.threads = threads
        self._running: dict[tuple, concurrent.futures.Future] = {}
        self._ended: concurrent.futures.Future = concurrent.futures.Future()
        self._waited = 0.0

    def start(self, key: tuple, call: Callable) -> None:
        """Starts `call()`. Raises ValueError for a key that is under way."""
        if key in self._running:
            raise ValueError(f"A call under {key} has not been taken yet.")
        self._running[key] = self.threads.submit(call)

    def take(self, keys: Sequence[tuple]) -> list[Any]:
        """The results under `keys`, once all of them are there. Raises what a call
        raised; then nothing is under way any more."""
        started = time.perf_counter()
        try:
            return [self._result(self._running.pop(key)) for key in keys]
        except BaseException:
            for future in self._running.values():
                future.cancel()
            self._running.clear()
            raise
        finally:
            self._waited += time.perf_counter() - started

    def end(self, error: BaseException) -> None:
        """Has `take` raise `error`, now and from now on, rather than wait for a call:
        what they are for has failed. Safe to call from another thread."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self._ended.set_exception(error)

    def seconds_waited(self) -> float:
        """Seconds spent in `take` since the last call of this method."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _result(self, future: concurrent.futures.Future) -> Any:
        concurrent.futures.wait(
            [future, self._ended], return_when=concurrent.futures.FIRST_COMPLETED
        )
        return future.result() if future.done() else self._ended.result()

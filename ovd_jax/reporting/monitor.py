"""Measures the costs of a run: compilations, memory and time."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import jax

from ovd_jax.paths import cache_dir

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Stopwatch:
    """Times named parts; concurrent parts each count in full."""

    def __init__(self):
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Adds the block's wall time to `part`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[part] = self._seconds.get(part, 0.0) + elapsed

    def timed(self, part: str, function: Callable) -> Callable:
        """`function`, with its calls timed as `part`."""

        def call(*args, **kwargs):
            with self.time(part):
                return function(*args, **kwargs)

        return call

    def timed_items(self, part: str, function: Callable) -> Callable:
        """`function`, an iterator, with the waits for its items timed as `part`."""

        def call(*args, **kwargs):
            items = iter(function(*args, **kwargs))
            while True:
                with self.time(part):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return call

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call."""
        seconds = {f"seconds_{part}": s for part, s in self._seconds.items()}
        self._seconds = {}
        return seconds


class Monitor(Stopwatch):
    """Times the parts of a step and counts compilations."""

    def __init__(self):
        super().__init__()
        self.compiles = 0
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **_: str | int) -> None:
        self.compiles += event == _COMPILE_EVENT

    def take(self) -> dict[str, float]:
        """Seconds by part, compilations so far, and memory in MiB."""
        return super().take() | {"compiles": self.compiles, "rss_mib": resident_mib()}


def resident_mib() -> float:
    """The resident set of this process, in MiB; 0 without /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def enable_compilation_cache() -> None:
    """Caches compiled programs in the user's cache, unless JAX is configured
    otherwise."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore  # made at run time
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

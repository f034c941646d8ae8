"""What a run costs: compilations, memory and time."""

import contextlib
import os
import time
from collections.abc import Iterator

import jax

from ovd_jax.paths import cache_dir

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Monitor:
    """Counts compilations from now on and times the parts of a step."""

    def __init__(self):
        self.compiles = 0
        self._seconds: dict[str, float] = {}
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, _seconds: float, **_) -> None:
        self.compiles += event == _COMPILE_EVENT

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Adds the block's wall time to `part`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[part] = self._seconds.get(part, 0.0) + elapsed

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call, compilations so far, memory in MiB."""
        seconds = {f"seconds_{part}": s for part, s in self._seconds.items()}
        self._seconds = {}
        return seconds | {"compiles": self.compiles, "rss_mib": resident_mib()}


def resident_mib() -> float:
    """The resident set of this process, in MiB; 0 where /proc is not to be had."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache, unless JAX is told another place."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

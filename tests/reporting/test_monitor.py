"""Compilations are counted, and kept for the next process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ovd_jax.reporting.monitor import Monitor, resident_mib

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import jax, jax.numpy as jnp
from ovd_jax.reporting.monitor import enable_compilation_cache
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
enable_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)))
print(hits.count("/jax/compilation_cache/cache_hits"))
"""


def test_every_new_shape_is_a_compilation_and_a_known_one_is_none():
    monitor = Monitor()
    double = jax.jit(lambda x: 2 * x)
    seen = []
    for size in (3, 3, 4, 3):
        double(jnp.zeros(size)).block_until_ready()
        seen.append(monitor.take()["compiles"])
    assert seen[0] == seen[1] < seen[2] == seen[3]


def test_times_are_of_their_parts_since_the_last_look():
    monitor = Monitor()
    for _ in range(2):
        with monitor.time("update"):
            time.sleep(0.02)
    first = monitor.take()
    assert first["seconds_update"] == pytest.approx(0.04, abs=0.03)
    assert first["rss_mib"] == pytest.approx(resident_mib(), rel=0.2)
    assert "seconds_update" not in monitor.take()


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    hits = [
        int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM], env=environment, timeout=120,
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for _ in range(2)
    ]  # fmt: skip
    assert hits[0] == 0 < hits[1]
    assert list((tmp_path / "ovd_jax" / "jax").iterdir())

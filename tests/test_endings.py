"""A program ends within seconds, though a search server that it waits for is away."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 5.0  # seconds
pytestmark = pytest.mark.multiprocess


def away() -> str:
    """A URL at which nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


SEARCHES = """
import threading, time
from ovd_jax.search.base import Query
from ovd_jax.search.engine import Search
from ovd_jax.search.http import Http
from ovd_jax.search.pool import SearchThreads
engine = Http({url!r}, topk=1, timeout_s=60.0, retries={retries})
pool = SearchThreads(Search(engine, on_failure="wait"))
pool.start([((n,), Query(str(n)), n) for n in range(100)])
time.sleep(0.5)
{then}
"""


@pytest.mark.parametrize("retries", [0, 20])
@pytest.mark.parametrize(
    ("then", "code"),
    [("raise RuntimeError('a fault')", 1), ("raise SystemExit(3)", 3), ("", 0)],
)
def test_searches_that_wait_keep_no_program_alive(then, code, retries):
    script = SEARCHES.format(url=f"{away()}/retrieve", retries=retries, then=then)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert time.monotonic() - begun < 10 * LIMIT  # its imports included

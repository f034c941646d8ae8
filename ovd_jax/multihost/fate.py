"""Ends several processes together: an error in one ends all, with one line.

Otherwise the others would wait in a collective and abort minutes later without a
reason. JAX's coordination service keeps the reason; a thread of each process polls it.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import jax
from orbax.checkpoint import multihost

from ovd_jax.cli.flags import line_of
from ovd_jax.cli.interrupt import Interrupted

_KEY = "ovd_jax/ended_by"
_LOOK_S = 0.5  # between two polls of a process
_LAST_S = 1.0
_TOGETHER_S = 10.0  # wait for the others to see it


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
    """Runs the block on all processes; an error of one ends all of them."""
    if jax.process_count() == 1:
        yield
        return
    client = multihost.get_jax_distributed_client()
    over, ending = threading.Event(), threading.Lock()
    threading.Thread(target=_watch, args=[client, over, ending], daemon=True).start()
    try:
        yield
    except BaseException as error:
        if not ending.acquire(blocking=False):
            # It failed because another process ended; the other thread does the rest.
            threading.Event().wait()
        if not (line := line_of(error)):
            traceback.print_exception(error)
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            line = f"error: process {jax.process_index()} failed: {what}"
        code = error.code if isinstance(error, Interrupted) else 1
        # The first process to end is the cause; others may fail because of it.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.key_value_set(_KEY, json.dumps([line, code]))
        _end(client)
    over.set()


def _watch(client, over: threading.Event, ending: threading.Lock) -> None:
    """Ends this process once another one has ended."""
    while not over.wait(_LOOK_S):
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # no message yet
            client.key_value_try_get(_KEY)
            break
    if not over.is_set() and ending.acquire(blocking=False):
        _end(client)


def _end(client) -> None:
    """Prints the message of the process that ended first and ends this one, without
    waiting for JAX's shutdown, once all processes are here."""
    line, code = json.loads(client.key_value_try_get(_KEY))
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client.wait_at_barrier(_KEY, int(1000 * _TOGETHER_S))
    if jax.process_index() == 0:
        time.sleep(_LAST_S)  # it runs the service, whose end the others would report
    os._exit(code)

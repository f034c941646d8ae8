"""Several processes end together: an error in one of them ends all, with one line.

Else the others would wait for it in a collective, to be aborted minutes later, without
a word of why. What ended one is kept by the coordination service of JAX, where a thread
of each of the others looks for it.
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
_LOOK_S = 0.5  # between two looks of a process
_LAST_S = 1.0
_TOGETHER_S = 10.0  # that one waits for the others to see it


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
    """The block, which all processes run; an error of one ends all of them."""
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
            # It failed since another process ended; the other thread does the rest.
            threading.Event().wait()
        if not (line := line_of(error)):
            traceback.print_exception(error)
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            line = f"error: process {jax.process_index()} failed: {what}"
        code = error.code if isinstance(error, Interrupted) else 1
        # The first to end has the word, for others may fail because it did.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.key_value_set(_KEY, json.dumps([line, code]))
        _end(client)
    over.set()


def _watch(client, over: threading.Event, ending: threading.Lock) -> None:
    """Ends this process once another one has."""
    while not over.wait(_LOOK_S):
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # there is nothing yet
            client.key_value_try_get(_KEY)
            break
    if not over.is_set() and ending.acquire(blocking=False):
        _end(client)


def _end(client) -> None:
    """Says what the first process to end said, and ends this one without the goodbyes
    that JAX waits for, once all have come here."""
    line, code = json.loads(client.key_value_try_get(_KEY))
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client.wait_at_barrier(_KEY, int(1000 * _TOGETHER_S))
    if jax.process_index() == 0:
        time.sleep(_LAST_S)  # it has the service, whose end the others would report
    os._exit(code)

"""Runs several processes, each with its own devices, as one program.

All processes run the same driver with the same config, problems and seeds, and shard
one model over all devices. So shapes agree, every process makes the same calls in the
same order, and the run gives the same result as one process. Two things happen on
process 0 only: it writes files and the screen (`on_main`), and it makes the calls that
may differ between processes, such as those of a remote teacher or of grading against
the clock; the others get its results (`broadcast_result`, and multihost/shared.py).
"""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ovd_jax.errors import EnvError, TeacherError, UserError
from ovd_jax.rollout.records import decode, encode
from ovd_jax.search.base import SearchError
from ovd_jax.shapes import bucket

ERRORS = {
    error.__name__: error
    for error in (
        EnvError, KeyError, NotImplementedError, OSError, RuntimeError, SearchError,
        TeacherError, TypeError, UserError, ValueError,
    )
}  # fmt: skip
_OWN = (EnvError, SearchError, TeacherError, UserError)  # their messages say it all
_LEAST_BYTES = 4096  # of a message; they double from there: few programs are compiled


def connect(*, coordinator: str, processes: int, process: int) -> None:
    """Connects this process to the others; call it before any device is used.

    `coordinator` is process 0's `host:port`, or `auto` to ask the cluster (TPU pods,
    Slurm, Open MPI), or empty for a single process. Raises UserError.
    """
    alone = not coordinator and processes == 1
    if alone or jax.distributed.is_initialized():
        return
    # JAX would take SIGTERM for itself, and do nothing: see interrupt.py.
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if ":" not in coordinator or not 0 <= process < processes:
        raise UserError(
            f"config.distributed: coordinator {coordinator!r}, process {process} of "
            f"{processes}; give host:port (or auto), and to each process a number from "
            "0 to the number of processes less one."
        )
    jax.distributed.initialize(coordinator, processes, process)


def check_devices() -> None:
    """Raises UserError if JAX finds no device of the selected platform."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter of a missing plugin
        options: Any = jax.config  # gets its attributes while it runs
        reason = " ".join(str(error).split())[:200] or "its plugin is not installed"
        raise UserError(
            f"JAX_PLATFORMS={options.jax_platforms}: JAX finds no such device here "
            f"({reason}). "
            "Install JAX for it (see README), or unset JAX_PLATFORMS to take any."
        ) from error


def is_main() -> bool:
    """True on process 0, the only one that writes."""
    return jax.process_index() == 0


class NullObject:
    """Takes any call and does nothing; `on_main` returns it to the other processes."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None

    def __enter__(self) -> "NullObject":
        return self

    def __exit__(self, *_) -> None:
        pass


def on_main(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls `function` on process 0 only; the others get a `NullObject`."""
    return function(*args, **kwargs) if is_main() else NullObject()


def broadcast_result(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls `function` on process 0; every process returns its result, or raises its
    exception."""
    if jax.process_count() == 1:
        return function(*args, **kwargs)
    message = outcome(function, *args, **kwargs) if is_main() else b""
    return result_of(broadcast(message))


def outcome(function: Callable, *args: Any, **kwargs: Any) -> bytes:
    """The result or exception of `function` as a message for `result_of`.

    The message is data that cannot be executed. There is always one, for the other
    processes wait for it.
    """
    try:
        return encode({"result": function(*args, **kwargs)})
    except Exception as error:
        return encode(_sent(error))


def _sent(error: Exception) -> dict:
    bases = type(error).__mro__
    kind = next((base for base in bases if base in ERRORS.values()), RuntimeError)
    if isinstance(error, OSError) and error.errno is not None:
        # What a disk's error is explained by: see cli/environment.py.
        named = [] if error.filename is None else [str(error.filename)]
        return {"error": kind.__name__, "args": [error.errno, error.strerror, *named]}
    own = kind in (type(error), *_OWN)
    said = str(error) if own else f"{type(error).__name__}: {error}"
    return {"error": kind.__name__, "args": [said]}


def result_of(message: bytes) -> Any:
    """Returns the result, or raises the exception, in a message of `outcome`.

    An exception that is not in `ERRORS` becomes the nearest of them that it is a kind
    of, or a RuntimeError, and is named.
    """
    found = decode(message)
    if "error" not in found:
        return found["result"]
    raise ERRORS[found["error"]](*found["args"])


def broadcast(message: bytes) -> bytes:
    """Process 0's message, on every process."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    padded = np.zeros(max(bucket(size), _LEAST_BYTES), np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()[:size]


def check_same(what: str, value: object) -> None:
    """Raises UserError on every process unless `repr(value)` is the same on all.

    Otherwise they would run different programs with different collectives, and wait for
    each other forever.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.blake2b(repr(value).encode(), digest_size=8).digest()
    everyone = multihost_utils.process_allgather(np.frombuffer(digest, np.uint32))
    others = np.flatnonzero((everyone != everyone[0]).any(axis=1)).tolist()
    if others:
        raise UserError(
            f"Processes {others} and process 0 differ in {what}; start all of them "
            "with the same code, config and data."
        )

"""Several processes, each with devices of its own, as one program.

All of them run the same driver: the same config, problems and seeds, and a model whose
rows and weights lie over the devices of all. So shapes agree by themselves, every
process makes the same calls in the same order, and a run gives what one process would.
Two things are not repeated: files and the screen are process 0's (`on_main`), and what
can turn out differently in each, such as a remote teacher or grading against the clock,
is asked there and told to all (`FromMain`).
"""

import functools
import hashlib
from collections.abc import Callable

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
_LEAST_BYTES = 4096  # of a message; they double from there: few programs are compiled


def connect(*, coordinator: str, processes: int, process: int) -> None:
    """Joins the others, before any device is used.

    `coordinator` is process 0's `host:port`; `auto` asks the cluster (TPU pods, Slurm,
    Open MPI); empty means that there are no others. Raises UserError.
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
    """Raises UserError where JAX finds no device of the kind that it is told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter of a missing plugin
        wanted = jax.config.jax_platforms
        reason = " ".join(str(error).split())[:200] or "its plugin is not installed"
        raise UserError(
            f"JAX_PLATFORMS={wanted}: JAX finds no such device here ({reason}). "
            "Install JAX for it (see README), or unset JAX_PLATFORMS to take any."
        ) from error


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


class Silent:
    """Takes any call and does nothing: what `on_main` gives to the others."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_) -> None:
        pass


def on_main(function: Callable, *args, **kwargs):
    """What `function` returns, on process 0; `Silent` and no call on the others."""
    return function(*args, **kwargs) if is_main() else Silent()


class FromMain:
    """`target`, whose `methods` process 0 alone runs; all return, or raise, the same.

    All processes must call them, in the same order.
    """

    def __init__(self, target, *methods: str):
        self._target = target
        self._methods = methods

    def __getattr__(self, name: str):
        value = getattr(self._target, name)
        return functools.partial(tell, value) if name in self._methods else value


def tell(function: Callable, *args, **kwargs):
    """What `function` returns or raises on process 0, on every process."""
    if jax.process_count() == 1:
        return function(*args, **kwargs)
    message = outcome(function, *args, **kwargs) if is_main() else b""
    return result_of(broadcast(message))


def outcome(function: Callable, *args, **kwargs) -> bytes:
    """What `function` returns or raises, for `result_of`: data, and nothing that could
    be run. Whatever it is, there is a message: the others must not wait for ever."""
    try:
        return encode({"result": function(*args, **kwargs)})
    except Exception as error:
        return encode({"error": type(error).__name__, "message": str(error)})


def result_of(message: bytes):
    """Returns or raises what the message of `outcome` says; an error that has no name
    in `ERRORS` is a RuntimeError that says which it was."""
    found = decode(message)
    if "error" not in found:
        return found["result"]
    name, text = found["error"], found["message"]
    raise ERRORS[name](text) if name in ERRORS else RuntimeError(f"{name}: {text}")


def broadcast(message: bytes) -> bytes:
    """Process 0's message, on every process."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    padded = np.zeros(max(bucket(size), _LEAST_BYTES), np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()[:size]


def check_same(what: str, value) -> None:
    """Raises UserError on every process unless `value` has one `repr` on all.

    Else they would wait for each other for ever: different programs are different
    collectives.
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

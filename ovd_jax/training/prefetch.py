"""Collects the next rollout batch while the student is trained on the last one."""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ovd_jax.cli.interrupt import SIGNALS
from ovd_jax.files import whole_file
from ovd_jax.models.lora import trainable, with_trainable
from ovd_jax.models.transformer import Transformer
from ovd_jax.rollout.records import decode, encode
from ovd_jax.sampling.sampler import Sampler

_log = logging.getLogger(__name__)
_GRACE_S = 3.0  # how long a program that ends waits for the batch being collected
_POLL_S = 0.1  # between checks for a signal
_KEPT = 3  # batch files: those of the kept checkpoints, and the next one


class RolloutPrefetcher:
    """Returns the rollout batch of each step, made by `collect(model, step)`.

    With `batches` 0, `next` collects the batch. With 1, `start` begins the next batch
    before the update: the student samples it from the current weights, and the teacher
    judges it during the update. So the batch of step k depends on the weights of step
    k - 1: its staleness is 1, and 0 for the first batch of a run. This costs one more
    copy of the trained weights.

    `save` writes the prefetched batch of a checkpoint into `folder`, so a resumed run
    continues exactly. If that file is missing or damaged, the batch is collected again
    from the saved weights, with a warning: a run that is stopped waits only a few
    seconds for a batch being collected.
    """

    def __init__(self, collect: Callable, *, batches: int, folder: Path):
        self._collect = collect
        self._batches = batches
        self._folder = Path(folder)
        self._next: tuple[int, concurrent.futures.Future] | None = None
        self._taken: tuple[int, object] | None = None  # by the current step

    def next(self, model: Transformer, step: int) -> tuple[Any, dict]:
        """Returns the rollout batch and metrics on its staleness and waiting time."""
        if not self._batches:
            return self._collect(model, step), {"staleness": 0}
        batch, metrics = self._take(model, step)
        self._taken, self._next = (step, batch), None
        return batch, metrics

    def _take(self, model, step: int):
        started = time.perf_counter()
        if self._next is None:
            if step and (saved := self._saved(step)) is not None:
                return saved, {"staleness": 1}
            return self._collect(model, step), {"staleness": 0}
        expected, future = self._next
        assert expected == step
        batch = future.result()
        waited = time.perf_counter() - started
        return batch, {"staleness": 1, "seconds_teacher_waited": waited}

    def start(self, model: Transformer, step: int, sampler: "LockedSampler") -> None:
        """Starts to collect the batch of `step`, if batches are prefetched.

        Returns once `sampler` has sampled from a copy of the trained weights.
        """
        if not self._batches:
            return
        copy = with_trainable(model, jax.tree.map(jnp.copy, trainable(model)))
        sampler.sampled.clear()
        future = in_thread(self._collect, copy, step)
        future.add_done_callback(lambda _: sampler.sampled.set())
        self._next = step, future
        sampler.sampled.wait()

    def save(self, step: int, *, ending: bool = False) -> None:
        """Writes the prefetched batch of `step` beside the checkpoint saved now.

        Waits for the batch; for a few seconds only if the program is `ending` or
        interrupted.
        """
        if self._taken is not None and self._taken[0] == step:
            write_batch(self._path(step), step, self._taken[1])
        elif self._next is not None and self._next[0] == step:
            future = self._next[1]
            if not is_collected(future, ending=ending):
                return
            write_batch(self._path(step), step, future.result())
        for old in sorted(self._folder.glob("*.batch"))[:-_KEPT]:
            old.unlink()

    def _saved(self, step: int):
        try:
            return read_batch(self._path(step), step)
        except (OSError, ValueError) as error:
            _log.warning(
                "The batch collected ahead for step %d cannot be read (%s). It is "
                "collected anew from the weights of the checkpoint, so the run ends "
                "otherwise than one without a break would.", step, error,
            )  # fmt: skip
            return None

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:09}.batch"


def is_collected(future: concurrent.futures.Future, *, ending: bool) -> bool:
    """Waits for a batch; returns False if it did not come.

    A program that is `ending`, or that a signal ends meanwhile, waits `_GRACE_S` and
    ignores the errors of the batch.
    """
    ends = 0.0
    while not future.done():
        ending = ending or bool(SIGNALS.number)
        if ending:
            ends = ends or time.monotonic() + _GRACE_S
            if time.monotonic() > ends:
                return False
        concurrent.futures.wait([future], timeout=_POLL_S)
    return not ending or future.exception() is None


def write_batch(path: Path, step: int, batch: Any) -> None:
    """Writes a line of JSON with the batch's length and digest, then the batch as
    `rollout/records.py` encodes it."""
    data = encode(batch)
    with whole_file(path) as file:
        file.write(json.dumps(_about(step, data)).encode() + b"\n" + data)


def read_batch(path: Path, step: int) -> Any:
    """Reads what `write_batch` wrote for `step`. Raises OSError, and ValueError if the
    file is torn or of another step."""
    about, _, data = path.read_bytes().partition(b"\n")
    try:
        found = json.loads(about)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if found != _about(step, data):
        raise ValueError(f"{path} is torn, or of another step or version")
    return decode(data)


def _about(step: int, data: bytes) -> dict:
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return {"format": 1, "step": step, "bytes": len(data), "blake2b": digest}


def in_thread(function: Callable, *args: Any) -> concurrent.futures.Future:
    """The future result of `function`, called in a daemon thread under this mesh.

    The program does not wait for the thread at its end: it may be waiting for a
    teacher.
    """
    future = concurrent.futures.Future()
    mesh = jax.sharding.get_mesh()

    def work():
        under = contextlib.nullcontext() if mesh.empty else jax.set_mesh(mesh)
        try:
            with under:
                future.set_result(function(*args))
        except BaseException as error:  # raised by `future.result`
            future.set_exception(error)

    threading.Thread(target=work, name="prefetch", daemon=True).start()
    return future


class DeviceLock:
    """A lock for programs on the devices, which samplers and learner take in turns.

    On several devices two programs that run at once may wait for each other forever.
    """

    def __init__(self):
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_) -> None:
        self._lock.release()

    def sampler(self, sampler: Sampler) -> "LockedSampler":
        """`sampler`, which holds this lock while it samples."""
        return LockedSampler(sampler, self)


class LockedSampler:
    """A sampler that holds a device lock while it samples."""

    def __init__(self, sampler: Sampler, lock: DeviceLock):
        self._sampler = sampler
        self.lock = lock
        self.sampled = threading.Event()  # set at the end of every call

    def __call__(self, *args, **kwargs):
        """Samples completions while holding the device lock."""
        try:
            with self.lock:
                return self._sampler(*args, **kwargs)
        finally:
            self.sampled.set()

    def stream(self, *args: Any, **kwargs: Any) -> Iterator:
        """Streams completions while holding the device lock."""
        try:
            with self.lock:
                yield from self._sampler.stream(*args, **kwargs)
        finally:
            self.sampled.set()

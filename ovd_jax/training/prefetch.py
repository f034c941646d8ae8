"""Rollout batches, one of them collected while the one before is trained on."""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

from ovd_jax.cli.interrupt import SIGNALS
from ovd_jax.files import whole_file
from ovd_jax.models.lora import trained, with_trained
from ovd_jax.rollout.records import decode, encode
from ovd_jax.sampling.sampler import Sampler

_log = logging.getLogger(__name__)
_SOON_S = 3.0  # that a program which ends waits for the batch that is under way
_LOOK_S = 0.1  # between looks for a signal
_KEPT = 3  # files of batches: of the checkpoints that are kept, and of the next one


class Ahead:
    """Gives the batch of each step; `collect(model, step)` makes one, of any kind.

    With `batches` 0 each is collected when it is asked for. With 1 the next one begins
    before the update: the student samples it from the weights as they are then, and
    while the teacher judges it the update goes on. So the batch of step k is a function
    of the weights of step k - 1, and its staleness is 1, never more; the first batch of
    a run has none. It costs one more copy of the trained weights.

    A state that is saved has such a batch beside it (`save`), in `folder`, so that a
    run that is resumed goes on as if it had not been ended. Where that batch is missing
    or damaged, it is collected anew from the saved weights, and a warning says so: a
    run that is stopped waits a few seconds alone for what is still collected.
    """

    def __init__(self, collect: Callable, *, batches: int, folder: Path):
        self._collect = collect
        self._batches = batches
        self._folder = Path(folder)
        self._next: tuple[int, concurrent.futures.Future] | None = None
        self._taken: tuple[int, object] | None = None  # by the step that is under way

    def take(self, model, step: int):
        """(batch, metrics of how it was come by)."""
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

    def begin(self, model, step: int, gate: "Gate") -> None:
        """Starts on the batch of `step`, if there is to be one ahead; returns when the
        student has sampled, and what it needs of `model` is copied."""
        if not self._batches:
            return
        copy = with_trained(model, jax.tree.map(jnp.copy, trained(model)))
        gate.sampled.clear()
        future = in_thread(self._collect, copy, step)
        future.add_done_callback(lambda _: gate.sampled.set())
        self._next = step, future
        gate.sampled.wait()

    def save(self, step: int, *, ending: bool = False) -> None:
        """Writes the batch of `step`, if one was begun, for a state that is saved now
        and goes on with it. Waits until it is there; where the program is `ending`, or
        is interrupted, a few seconds at most."""
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
    """Waits for a batch: whether it is there. A program that is `ending`, or that a
    signal ends meanwhile, waits `_SOON_S`, and another error than its own is none."""
    ends = 0.0
    while not future.done():
        ending = ending or bool(SIGNALS.number)
        if ending:
            ends = ends or time.monotonic() + _SOON_S
            if time.monotonic() > ends:
                return False
        concurrent.futures.wait([future], timeout=_LOOK_S)
    return not ending or future.exception() is None


def write_batch(path: Path, step: int, batch) -> None:
    """A batch as a line of JSON, with the length and a digest of what follows, and the
    batch itself: see `ovd_jax/rollout/records.py`."""
    data = encode(batch)
    with whole_file(path) as file:
        file.write(json.dumps(_about(step, data)).encode() + b"\n" + data)


def read_batch(path: Path, step: int):
    """The batch that `write_batch` wrote for `step`. Raises OSError, and ValueError
    where the file is torn or of another step."""
    about, _, data = path.read_bytes().partition(b"\n")
    if json.loads(about) != _about(step, data):
        raise ValueError(f"{path} is torn, or of another step or version")
    return decode(data)


def _about(step: int, data: bytes) -> dict:
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return {"format": 1, "step": step, "bytes": len(data), "blake2b": digest}


def in_thread(function: Callable, *args) -> concurrent.futures.Future:
    """What `function` returns or raises in a thread of its own, under this one's mesh.

    The program does not wait for it to end: it may be waiting for a teacher.
    """
    future = concurrent.futures.Future()
    mesh = jax.sharding.get_mesh()

    def work():
        under = contextlib.nullcontext() if mesh.empty else jax.set_mesh(mesh)
        try:
            with under:
                future.set_result(function(*args))
        except BaseException as error:  # it is raised where it is asked for
            future.set_exception(error)

    threading.Thread(target=work, name="ahead", daemon=True).start()
    return future


class Gate:
    """A sampler and a learner that take turns on the devices, from two threads."""

    def __init__(self, sampler: Sampler):
        self._sampler = sampler
        self.lock = threading.Lock()
        self.sampled = threading.Event()  # set whenever a call of the sampler is over

    def beside(self, sampler: Sampler) -> "Gate":
        """Another sampler, such as that of evaluation, which takes turns with them."""
        gate = Gate(sampler)
        gate.lock = self.lock
        return gate

    def __call__(self, *args, **kwargs):
        """The sampler's."""
        try:
            with self.lock:
                return self._sampler(*args, **kwargs)
        finally:
            self.sampled.set()

    def stream(self, *args, **kwargs) -> Iterator:
        """The sampler's; nobody else has the devices until it is over."""
        try:
            with self.lock:
                yield from self._sampler.stream(*args, **kwargs)
        finally:
            self.sampled.set()

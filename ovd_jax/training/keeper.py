"""Saves a run that a signal ends."""

import contextlib
from collections.abc import Iterator

import jax

from ovd_jax.cli.interrupt import SIGNALS, Interrupted
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.update import TrainState


class Keeper:
    """A context for a run of `total` steps, the first `start` of them done, that saves
    the last complete step when Interrupted is raised.

    Several processes receive a signal at different steps: they keep the last
    checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints, *, start: int, total: int):
        self._checkpoints = checkpoints
        self._start, self._done, self._total = start, start, total
        self._state: TrainState | None = None

    @contextlib.contextmanager
    def whole_step(self) -> Iterator[None]:
        """Holds signals back while the state changes and its row is written.

        The first step may be lost: it compiles, and no earlier step was done.
        """
        with SIGNALS.held() if self._done > self._start else contextlib.nullcontext():
            yield

    def done(self, state: TrainState) -> None:
        """Records a complete step with the state after it; call it inside
        `whole_step`."""
        self._done += 1
        self._state = state

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, _type, error, _traceback) -> None:
        if not isinstance(error, Interrupted):
            return
        SIGNALS.noticed.set()
        if self._state is not None and jax.process_count() == 1:
            self._checkpoints.save(self._state, force=True)
        done = f"{self._done} of {self._total} steps are done"
        self._checkpoints.close()
        if jax.process_count() > 1:
            done += ", those up to the last checkpoint are saved"
        elif self._done:
            done += " and saved"
        error.advice = f"{done}; the same command goes on from there."

"""The loss that a method minimizes, and the models that it compares the student
with."""

import dataclasses
from collections.abc import Callable

from ovd_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss of the student, with all that a `Learner` has to provide for it.

    `loss(model, part, *, temperature, chunk, remat)` returns (loss, sums) of a part of
    a batch. With `extra_inputs`, the part is (part, *extra_inputs).
    """

    loss: Callable
    temperature: float  # of all log-probabilities
    needs_behavior: bool = True  # whether the loss reads the policy at collection
    reference: Transformer | None = None  # its log-probabilities enter the batch
    token_teacher: Transformer | None = None  # likewise
    extra_inputs: tuple | None = None
    pairs: bool = False  # whether the rollouts of a group must share a packed row

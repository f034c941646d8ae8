"""A rollout batch to optimizer steps: log-probabilities first, then minibatches."""

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np
import optax

from ovd_jax.learning.losses import Batch, token_weights
from ovd_jax.learning.update import (
    Stepper,
    TrainState,
    batch_logprobs,
    policy_objective,
)
from ovd_jax.models.lora import with_trained
from ovd_jax.models.sharding import fetch, put_rows
from ovd_jax.models.transformer import Transformer


class Learner:
    """All optimizer steps on one rollout batch, in parts that fit the memory."""

    def __init__(
        self,
        *,
        tx: optax.GradientTransformation,
        objective: Callable = policy_objective,
        reference: Transformer | None = None,
        teacher: Transformer | None = None,
        beside: tuple | None = None,
        needs_behavior: bool = True,
        minibatches: int,
        epochs: int,
        max_tokens: int,
        aggregation: str,
        temperature: float,
        chunk: int,
        **options,
    ):
        """`objective(model, part, temperature=, chunk=, **options)` gives a part's
        (loss, sums); with `beside`, the part is (part, *beside).

        Of `reference` and `teacher` the log-probabilities are put into the batch, at
        `temperature`; `needs_behavior` says whether those of the policy at collection
        matter.
        """
        self.reference = reference
        self.teacher = teacher
        self.beside = beside
        self.needs_behavior = needs_behavior
        self.minibatches = minibatches
        self.epochs = epochs
        self._weights = functools.partial(
            token_weights, aggregation=aggregation, max_tokens=max_tokens
        )
        self._logprobs = functools.partial(
            batch_logprobs, temperature=temperature, chunk=chunk
        )
        objective = functools.partial(
            objective, temperature=temperature, chunk=chunk, **options
        )
        self.tx = tx
        self.stepper = Stepper(objective, tx)

    @property
    def steps_a_batch(self) -> int:
        """Optimizer steps taken on each rollout batch."""
        return self.minibatches * self.epochs

    def learn(self, state: TrainState, batch: Batch, *, packs: int, seed: int):
        """All epochs and minibatches on a rollout batch, `packs` of it on the device at
        a time: (state, metrics).

        Behavior log-probabilities are the policy's as it stands before the first step,
        for the teacher's tokens too, so that the ratio starts at 1. Where one step is
        all, they are that step's own.
        """
        batch = self.with_logprobs(state.model, batch, packs, state.reference)
        collected = []
        for part in self.split(batch, seed=seed):
            weights = self._weights(part.weights_KC > 0, part.segments_KC)
            parts = cut(part.replace(weights_KC=weights), packs)
            state, metrics = self.stepper(state, map(self.with_beside, parts))
            collected.append(metrics)
        return state, means(jax.device_get(collected))

    def with_logprobs(
        self, model: Transformer, batch: Batch, packs: int, refreshed=None
    ) -> Batch:
        """The batch with the log-probabilities of behavior, reference and teacher; the
        reference is `refreshed`, as in a `TrainState`, if that is given."""
        models = {}
        if self.needs_behavior and self.steps_a_batch > 1:
            models["behavior_logprobs_KC"] = model
        if self.reference is not None:
            models["ref_logprobs_KC"] = self.reference
        if refreshed is not None:
            models["ref_logprobs_KC"] = with_trained(model, refreshed)
        if self.teacher is not None:
            models["teacher_logprobs_KC"] = self.teacher
        found = {
            name: self._all_logprobs(model, batch, packs)
            for name, model in models.items()
        }
        return batch.replace(**found)

    def _all_logprobs(self, model, batch: Batch, packs: int) -> np.ndarray:
        parts = [self._logprobs(model, put_rows(part)) for part in cut(batch, packs)]
        return np.concatenate(fetch(parts))[: len(batch.tokens_KC)]

    def with_beside(self, part: Batch):
        """What the objective gets of a part of a batch."""
        part = put_rows(part)
        return part if self.beside is None else (part, *self.beside)

    def split(self, batch: Batch, *, seed: int) -> Iterator[Batch]:
        """Minibatches of as many problems or one less, in a fresh order every epoch.

        All packs of a problem are in one minibatch, so that what a minibatch holds does
        not depend on the number of devices and their memory, which packs do.
        """
        problems_K, batch = batch.problems_K, batch.replace(problems_K=None)
        if problems_K is None:
            problems_K = np.arange(len(batch.tokens_KC))
        for epoch in range(self.epochs):
            order = np.random.default_rng((seed, epoch)).permutation(
                problems_K.max() + 1
            )
            for picked in np.array_split(order, self.minibatches):
                packs = np.concatenate(
                    [np.flatnonzero(problems_K == n) for n in picked]
                )
                yield jax.tree.map(lambda x, packs=packs: x[packs], batch)


def cut(batch: Batch, packs: int) -> Iterator[Batch]:
    """Parts of `packs` packs; zeros, which count nothing, fill up the last one."""
    for start in range(0, len(batch.tokens_KC), packs):
        part = jax.tree.map(lambda x, a=start: x[a : a + packs], batch)
        missing = packs - len(part.tokens_KC)
        yield jax.tree.map(
            lambda x, n=missing: np.pad(x, ((0, n), *[(0, 0)] * (x.ndim - 1))), part
        )


def means(collected: list[dict]) -> dict[str, float]:
    """The metrics of a rollout batch from the sums of its optimizer steps."""
    rows = []
    for sums in collected:
        tokens = max(sums.pop("tokens"), 1)
        row = {}
        if "own_tokens" in sums:
            mismatch = sums.pop("mismatch_sum") / max(sums.pop("own_tokens"), 1)
            row["sampler_mismatch_mean"] = mismatch
        for name, value in sums.items():
            is_sum = name.endswith("_sum")  # over tokens
            row[name.removesuffix("_sum")] = value / tokens if is_sum else value
        rows.append(row)
    result = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    for name in ("skipped_steps", "skipped_in_a_row"):
        result[name] = int(collected[-1][name])
    norms = [float(row["grad_norm"]) for row in rows]
    return result | {"grad_norm_var": float(np.var(norms))}

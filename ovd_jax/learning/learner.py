"""From a rollout batch to optimizer steps: log-probabilities first, then
minibatches."""

import functools
from collections.abc import Iterator

import jax
import numpy as np

from ovd_jax.learning.batch import Batch
from ovd_jax.learning.losses import token_weights
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import (
    Stepper,
    TrainState,
    Transformation,
    batch_logprobs,
)
from ovd_jax.models.lora import with_trainable
from ovd_jax.models.sharding import fetch, put_rows
from ovd_jax.models.transformer import Transformer


class Learner:
    """Takes all optimizer steps on one rollout batch, in parts that fit the memory."""

    def __init__(
        self,
        objective: Objective,
        *,
        tx: Transformation,
        minibatches: int,
        epochs: int,
        max_tokens: int,
        aggregation: str,
        chunk: int,
        remat: str = "none",
    ):
        self.objective = objective
        self.minibatches = minibatches
        self.epochs = epochs
        self._weights = functools.partial(
            token_weights, aggregation=aggregation, max_tokens=max_tokens
        )
        self._logprobs = functools.partial(
            batch_logprobs, temperature=objective.temperature, chunk=chunk
        )
        loss = functools.partial(
            objective.loss, temperature=objective.temperature, chunk=chunk, remat=remat
        )
        self.tx = tx
        self.stepper = Stepper(loss, tx)

    @property
    def steps_a_batch(self) -> int:
        """Optimizer steps on each rollout batch."""
        return self.minibatches * self.epochs

    def learn(
        self, state: TrainState, batch: Batch, *, microbatch: int, seed: int
    ) -> tuple[TrainState, dict[str, float]]:
        """Runs all epochs and minibatches on a rollout batch: (state, metrics).

        `microbatch` packed rows are on the devices at a time. The behavior
        log-probabilities are the policy's before the first step, for the teacher's
        tokens too, so the ratio starts at 1. A single step is its own behavior.
        """
        batch = self.with_logprobs(state.model, batch, microbatch, state.reference)
        collected = []
        for part in self.split(batch, seed=seed):
            trained_BY = np.asarray(part.weights_BY) > 0
            weights = self._weights(trained_BY, np.asarray(part.segments_BY))
            parts = cut(part.replace(weights_BY=weights), microbatch)
            state, metrics = self.stepper(state, map(self.with_extra_inputs, parts))
            collected.append(metrics)
        return state, means(jax.device_get(collected))

    def with_logprobs(
        self,
        model: Transformer,
        batch: Batch,
        microbatch: int,
        refreshed: Transformer | None = None,
    ) -> Batch:
        """The batch with the log-probabilities of behavior, reference and teacher.

        `refreshed`, a `TrainState.reference`, replaces the objective's reference.
        """
        objective, models = self.objective, {}
        if objective.needs_behavior and self.steps_a_batch > 1:
            models["behavior_logprobs_BY"] = model
        if objective.reference is not None:
            models["ref_logprobs_BY"] = objective.reference
        if refreshed is not None:
            models["ref_logprobs_BY"] = with_trainable(model, refreshed)
        if objective.token_teacher is not None:
            models["teacher_logprobs_BY"] = objective.token_teacher
        logprobs = {
            name: self._all_logprobs(model, batch, microbatch)
            for name, model in models.items()
        }
        return batch.replace(**logprobs)

    def _all_logprobs(self, model, batch: Batch, microbatch: int) -> np.ndarray:
        parts = cut(batch, microbatch)
        logprobs = [self._logprobs(model, put_rows(part)) for part in parts]
        return np.concatenate(fetch(logprobs))[: len(batch.tokens_BY)]

    def with_extra_inputs(self, part: Batch) -> Batch | tuple:
        """The part on the devices, with the objective's extra inputs if there are
        any."""
        part, extra = put_rows(part), self.objective.extra_inputs
        return part if extra is None else (part, *extra)

    def split(self, batch: Batch, *, seed: int) -> Iterator[Batch]:
        """Yields minibatches, in a new order every epoch; their numbers of problems
        differ by one at most.

        All packed rows of a problem are in one minibatch, so its content does not
        depend on the number of devices and their memory, as packing does.
        """
        problems_B, batch = batch.problems_B, batch.replace(problems_B=None)
        if problems_B is None:
            problems_B = np.arange(len(batch.tokens_BY))
        for epoch in range(self.epochs):
            order = np.random.default_rng((seed, epoch)).permutation(
                problems_B.max() + 1
            )
            for picked in np.array_split(order, self.minibatches):
                packs = np.concatenate(
                    [np.flatnonzero(problems_B == n) for n in picked]
                )
                yield jax.tree.map(lambda x, packs=packs: x[packs], batch)


def cut(batch: Batch, size: int) -> Iterator[Batch]:
    """Microbatches of `size` packed rows; zeros, which have no weight, pad the last."""
    for start in range(0, len(batch.tokens_BY), size):
        part = jax.tree.map(lambda x, a=start: x[a : a + size], batch)
        missing = size - len(part.tokens_BY)
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

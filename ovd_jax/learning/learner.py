"""A rollout batch to optimizer steps: log-probabilities first, then minibatches."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
import optax

from ovd_jax.learning.losses import Batch
from ovd_jax.learning.update import TrainState, batch_logprobs, update
from ovd_jax.models.transformer import Transformer


class Learner:
    """The jitted update and the fixed shape of its batches."""

    def __init__(
        self,
        *,
        tx: optax.GradientTransformation,
        reference: Transformer | None,
        minibatches: int,
        epochs: int,
        temperature: float,
        chunk: int,
        logprob_rows: int,
        **update_options,
    ):
        self.reference = reference  # None where kl_coef is 0: it is not needed
        self.minibatches = minibatches
        self.epochs = epochs
        self._logprobs = functools.partial(
            batch_logprobs, temperature=temperature, chunk=chunk, rows=logprob_rows
        )
        self._update = jax.jit(
            functools.partial(
                update, tx=tx, temperature=temperature, chunk=chunk, **update_options
            ),
            donate_argnums=0,
        )

    @property
    def steps_a_batch(self) -> int:
        """Optimizer steps taken on each rollout batch."""
        return self.minibatches * self.epochs

    def learn(self, state: TrainState, batch: Batch, *, seed: int):
        """All epochs and minibatches on one rollout batch: (state, metrics).

        Behavior log-probabilities are computed here, by the policy as it stands before
        the first step and for the teacher's tokens too, so that the ratio starts at 1.
        """
        batch = self.with_logprobs(state.model, batch)
        collected = []
        for part in self.split(batch, seed=seed):
            state, metrics = self._update(state, part)
            collected.append(metrics)
        collected = jax.device_get(collected)
        means = {
            name: float(np.mean([metrics[name] for metrics in collected]))
            for name in collected[0]
        }
        means["skipped_steps"] = int(collected[-1]["skipped_steps"])
        norms = [float(metrics["grad_norm"]) for metrics in collected]
        return state, means | mismatch(batch) | {"grad_norm_var": float(np.var(norms))}

    def with_logprobs(self, model: Transformer, batch: Batch) -> Batch:
        """The batch with the log-probabilities of behavior and reference filled in."""
        behavior = np.asarray(self._logprobs(model, batch.tokens_BT))
        ref = behavior
        if self.reference is not None:
            ref = np.asarray(self._logprobs(self.reference, batch.tokens_BT))
        return batch.replace(behavior_logprobs_BT=behavior, ref_logprobs_BT=ref)

    def split(self, batch: Batch, *, seed: int) -> Iterator[Batch]:
        """Minibatches of equal size, in a fresh order every epoch."""
        rows = len(batch.tokens_BT)
        for epoch in range(self.epochs):
            order = np.random.default_rng((seed, epoch)).permutation(rows)
            for picked in np.split(order, self.minibatches):
                yield jax.tree.map(lambda x, rows=picked: x[rows], batch)


def mismatch(batch: Batch) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the learner's, over the
    student's own tokens: mean and largest absolute difference, in nats."""
    own_BT = batch.completion_mask_BT & ~batch.teacher_mask_BT
    difference = np.abs(batch.behavior_logprobs_BT - batch.sampler_logprobs_BT)[own_BT]
    if not difference.size:
        return {"sampler_mismatch_mean": 0.0, "sampler_mismatch_max": 0.0}
    return {
        "sampler_mismatch_mean": float(difference.mean()),
        "sampler_mismatch_max": float(difference.max()),
    }

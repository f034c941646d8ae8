"""Losses of log-probabilities, and the weights of tokens."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.learning.batch import Batch
from ovd_jax.learning.logprobs import Loss
from ovd_jax.models.sharding import Array

Surrogate = tuple[jax.Array, jax.Array, jax.Array]  # gain, ratio, is clipped
Mask = Callable[[Array], jax.Array]


def token_weights(
    trained_BY: np.ndarray,
    segments_BY: np.ndarray,
    *,
    aggregation: str,
    max_tokens: int,
) -> np.ndarray:
    """The weight of each token in the loss: float32 [B, Y], 0 if untrained.

    `grpo` averages within each trajectory, then over trajectories (arXiv:2402.03300,
    eq. 3); `dapo` over all tokens (arXiv:2503.14476, eq. 8); `dr_grpo` divides by the
    constant `max_tokens` instead, so that length is not rewarded (arXiv:2503.20783).
    Trajectories without trained tokens do not count.
    """
    trained_BY = np.asarray(trained_BY, np.float32)
    packs = np.arange(len(segments_BY))[:, None]
    ids_BY = packs * (segments_BY.max(initial=0) + 1) + np.maximum(segments_BY, 0)
    tokens = np.bincount(ids_BY.ravel(), weights=trained_BY.ravel())
    trajectories = max((tokens > 0).sum(), 1)
    if aggregation == "grpo":
        weights_BY = trained_BY / np.maximum(tokens[ids_BY], 1) / trajectories
    elif aggregation == "dapo":
        weights_BY = trained_BY / max(tokens.sum(), 1)
    elif aggregation == "dr_grpo":
        weights_BY = trained_BY / (trajectories * max_tokens)
    else:
        raise UserError(
            f"aggregation {aggregation!r} is not one of grpo, dapo, dr_grpo."
        )
    return weights_BY.astype(np.float32)


def policy_loss(
    logprobs: jax.Array,
    entropies: jax.Array,
    batch: Batch,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    entropy_coef: float = 0.0,
    imitation_coef: float = 0.0,
    importance_cap: float | None = None,
    surrogate: str = "clip",
    kl_estimator: str = "k3",
) -> Loss:
    """A surrogate (eq. 4: `clip`) plus KL to the reference: (loss, sums of metrics).

    All arrays have one shape, [B, Y] for `gspo`. The sums are weighted by
    `batch.weights_BY`, so the losses of microbatches add up to the batch's.
    `importance_cap` weights the student's own tokens by min(p_behavior / p_sampler,
    cap), which corrects for the sampler's numerics or older weights. `imitation_coef`
    replaces the surrogate of the teacher's tokens by their cross-entropy times this
    coefficient, without advantage or clipping.
    """
    check_shapes(batch, logprobs, entropies)
    trained, total = masked(batch)
    behavior = behavior_logprobs(logprobs, batch)
    gain, ratio, is_clipped = SURROGATES[surrogate](
        trained(logprobs - behavior), batch, clip_low=clip_low, clip_high=clip_high
    )
    sums = mismatch_sums(behavior, batch)
    if importance_cap is not None:
        weights = importance_weights(behavior, batch, cap=importance_cap)
        gain *= weights
        sums["importance_weight_sum"] = total(weights)
        sums["importance_capped_sum"] = total(weights == importance_cap)
    if imitation_coef:
        imitated = imitation_coef * trained(logprobs)
        gain = jnp.where(batch.teacher_BY, imitated, gain)
    kl = reference_kl(logprobs, batch, kl_estimator)
    losses = kl_coef * kl - gain - entropy_coef * trained(entropies)
    return total(losses * batch.weights_BY), {
        "kl": total(kl * batch.weights_BY),
        "tokens": total(jnp.ones_like(ratio)),
        "ratio_sum": total(ratio),
        "clipped_sum": total(is_clipped),
        "entropy_sum": total(entropies),
        **sums,
    }


def reference_kl(logprobs: jax.Array, batch: Batch, estimator: str) -> jax.Array:
    """An estimate of the KL to the reference at each token; 0 without a reference."""
    if batch.ref_logprobs_BY is None:
        return jnp.zeros_like(logprobs)
    trained, _ = masked(batch)
    return KL_ESTIMATORS[estimator](trained(logprobs), trained(batch.ref_logprobs_BY))


def mismatch_sums(behavior: Array, batch: Batch) -> dict[str, jax.Array]:
    """The error of the sampler's log-probabilities on the student's own tokens."""
    trained, total = masked(batch)
    own = jnp.where(batch.teacher_BY, 0.0, 1.0)
    mismatch = jnp.abs(trained(behavior - batch.sampler_logprobs_BY))
    return {"own_tokens": total(own), "mismatch_sum": total(mismatch * own)}


def behavior_logprobs(logprobs: jax.Array, batch: Batch) -> Array:
    """Log-probabilities of the policy at collection; without any, the policy's own."""
    if batch.behavior_logprobs_BY is None:
        return jax.lax.stop_gradient(logprobs)
    return batch.behavior_logprobs_BY


def check_shapes(batch: Batch, *numbers: jax.Array) -> None:
    """Raises AssertionError unless `numbers` and what the batch holds of each token
    have one shape. Others may broadcast to it, and the loss would be a wrong number."""
    of_tokens = (
        batch.weights_BY,
        batch.teacher_BY,
        batch.advantages_BY,
        batch.sampler_logprobs_BY,
        batch.behavior_logprobs_BY,
        batch.ref_logprobs_BY,
        batch.teacher_logprobs_BY,
    )
    chex.assert_equal_shape([*numbers, *(x for x in of_tokens if x is not None)])


def masked(batch: Batch) -> tuple[Mask, Mask]:
    """(x with 0 where untrained, its sum).

    An untrained position may hold inf or nan. It is masked before `exp`, for the
    gradient of 0 times an overflow is nan.
    """
    is_trained = batch.weights_BY > 0

    def trained(x):
        return jnp.where(is_trained, x, 0.0)

    return trained, lambda x: jnp.sum(trained(x))


def clipped_surrogate(
    log_ratio: jax.Array, batch: Batch, *, clip_low: float, clip_high: float
) -> Surrogate:
    """PPO's surrogate (arXiv:1707.06347, eq. 7), as in GRPO; a wider `clip_high` is
    DAPO's clip-higher. Returns (gain, ratio, is clipped) of each token."""
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    advantages = batch.advantages_BY
    gain = jnp.minimum(ratio * advantages, clipped * advantages)
    return gain, ratio, ratio != clipped


def gspo_surrogate(
    log_ratio_BY: jax.Array, batch: Batch, *, clip_low: float, clip_high: float
) -> Surrogate:
    """GSPO's surrogate (arXiv:2507.18071, eqs. 5 and 7): all tokens of a trajectory
    share one ratio, the geometric mean of theirs, and are clipped together."""
    return clipped_surrogate(
        trajectory_means(log_ratio_BY, batch),
        batch, clip_low=clip_low, clip_high=clip_high,
    )  # fmt: skip


def cispo_surrogate(
    log_ratio: jax.Array, batch: Batch, *, clip_low: float, clip_high: float
) -> Surrogate:
    """CISPO's surrogate (arXiv:2506.13585, eq. 4): the log-probability weighted by the
    clipped ratio without its gradient, so that clipped tokens teach too.

    It multiplies log p / p_behavior, which has the same gradient. The paper has no
    lower bound: `clip_low` 1.
    """
    ratio = jnp.exp(log_ratio)
    clipped = jax.lax.stop_gradient(jnp.clip(ratio, 1 - clip_low, 1 + clip_high))
    return clipped * batch.advantages_BY * log_ratio, ratio, ratio != clipped


SURROGATES = {
    "clip": clipped_surrogate,
    "gspo": gspo_surrogate,
    "cispo": cispo_surrogate,
}


def trajectory_means(x_BY: jax.Array, batch: Batch) -> jax.Array:
    """For each token the mean of `x_BY` over the trained tokens of its trajectory."""
    is_trained_BY = (batch.weights_BY > 0).astype(x_BY.dtype)
    segments_BY = jnp.maximum(batch.segments_BY, 0)  # 0: padding's

    def of_pack(x_C, segments_C):
        sums = jax.ops.segment_sum(x_C, segments_C, len(segments_C) + 1)
        return sums[segments_C]

    sums_BY, counts_BY = (
        jax.vmap(of_pack)(values_BY, segments_BY)
        for values_BY in (x_BY * is_trained_BY, is_trained_BY)
    )
    return sums_BY / jnp.maximum(counts_BY, 1)


def k1(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
    """The plain estimate of KL(policy || reference) from samples of the policy.

    Only a measure: its expected gradient on the policy's samples is zero.
    """
    return logprobs - ref_logprobs


def k2(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
    """Half the square of `k1`: a biased estimate with the gradient of the KL on the
    policy's own samples."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def k3(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
    """The low-variance estimate of KL(policy || reference) from samples of the policy.

    exp(d) - d - 1 with d = ref - policy (J. Schulman, "Approximating KL divergence").
    """
    difference = ref_logprobs - logprobs
    return (
        jnp.expm1(difference) - difference
    )  # `exp` would round small differences away


KL_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def importance_weights(
    behavior_logprobs: Array, batch: Batch, *, cap: float
) -> jax.Array:
    """min(p_behavior / p_sampler, cap); 1 for the teacher's tokens."""
    ratio = jnp.exp(behavior_logprobs - batch.sampler_logprobs_BY)
    return jnp.where(batch.teacher_BY, 1.0, jnp.minimum(ratio, cap))


def imitation_loss(logprobs: jax.Array, entropies: jax.Array, batch: Batch) -> Loss:
    """Cross-entropy of the trained tokens, by their weights: (loss, sums)."""
    check_shapes(batch, logprobs, entropies)
    _, total = masked(batch)
    return -total(logprobs * batch.weights_BY), {
        "tokens": total(jnp.ones_like(logprobs)),
        "entropy_sum": total(entropies),
    }


def dpo_loss(
    logprobs_BY: jax.Array, entropies_BY: jax.Array, batch: Batch, *, beta: float
) -> Loss:
    """DPO (arXiv:2305.18290, eq. 7) where each packed row is a pair: (loss, sums).

    Advantages are 1 on the preferred trajectory and -1 on the other. A row's weights
    sum to the pair's weight; a row without any is padding.
    """
    assert batch.ref_logprobs_BY is not None
    check_shapes(batch, logprobs_BY, entropies_BY)
    chex.assert_rank(logprobs_BY, 2)
    trained, total = masked(batch)
    gained_BY = trained(logprobs_BY - batch.ref_logprobs_BY) * batch.advantages_BY
    margins_B = beta * gained_BY.sum(axis=1)
    pairs_B = trained(batch.weights_BY).sum(axis=1)
    return -jnp.sum(jax.nn.log_sigmoid(margins_B) * pairs_B), {
        "tokens": total(jnp.ones_like(logprobs_BY)),
        "entropy_sum": total(entropies_BY),
        "margin": jnp.sum(margins_B * pairs_B),
        "preferred_share": jnp.sum((margins_B > 0) * pairs_B),
    }

"""GRPO's loss, token by token, and how tokens are weighted against each other."""

import flax.struct
import jax
import jax.numpy as jnp


class Batch(flax.struct.PyTreeNode):
    """B trajectories, right-padded to T tokens: all that is ever sent to the
    devices."""

    tokens_BT: jax.Array  # int32: prompt, then completion, then padding
    completion_mask_BT: jax.Array  # bool: the token is trained on
    teacher_mask_BT: jax.Array  # bool: the token was written by the teacher
    advantages_BT: jax.Array  # float32: constant over a step, or over a trajectory
    sampler_logprobs_BT: (
        jax.Array
    )  # float32: as the sampler saw it; 0 for the teacher's
    behavior_logprobs_BT: (
        jax.Array
    )  # float32: the policy's when the batch was collected
    ref_logprobs_BT: jax.Array  # float32: the frozen reference's


def token_weights(
    mask_BT: jax.Array, *, aggregation: str, max_tokens: int
) -> jax.Array:
    """What each trained token counts in the loss: float32 [B, T], 0 where untrained.

    `grpo` averages within each trajectory, then over trajectories (arXiv:2402.03300,
    eq. 3); `dapo` over all tokens (arXiv:2503.14476, eq. 8); `dr_grpo` divides by the
    constant `max_tokens` instead, so that length is not rewarded (arXiv:2503.20783).
    A row without trained tokens counts nowhere.
    """
    mask_BT = mask_BT.astype(jnp.float32)
    tokens_B1 = mask_BT.sum(1, keepdims=True)
    rows = jnp.maximum((tokens_B1 > 0).sum(), 1)
    if aggregation == "grpo":
        return mask_BT / jnp.maximum(tokens_B1, 1) / rows
    if aggregation == "dapo":
        return mask_BT / jnp.maximum(tokens_B1.sum(), 1)
    if aggregation == "dr_grpo":
        return mask_BT / (rows * max_tokens)
    raise ValueError(f"aggregation {aggregation!r} is not one of grpo, dapo, dr_grpo.")


def policy_loss(
    logprobs_BT: jax.Array,
    batch: Batch,
    weights_BT: jax.Array,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    importance_cap: float | None = None,
):
    """Clipped surrogate (eq. 4) plus k3 KL to the reference: (loss, metrics).

    Sums over tokens by `weights_BT`, so the losses of micro-batches add up to the
    batch's. With `importance_cap` the student's own tokens are weighted by
    min(p_behavior / p_sampler, cap): what the sampler's numerics differ by.
    """
    ratio_BT = jnp.exp(logprobs_BT - batch.behavior_logprobs_BT)
    clipped_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
    advantages_BT = batch.advantages_BT
    surrogate_BT = jnp.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    if importance_cap is not None:
        surrogate_BT *= importance_weights(batch, cap=importance_cap)
    kl_BT = k3(logprobs_BT, batch.ref_logprobs_BT)

    def total(x_BT):
        # `where` and not a product: an untrained position may hold inf or nan.
        return jnp.sum(x_BT * weights_BT, where=batch.completion_mask_BT)

    share = batch.completion_mask_BT.astype(jnp.float32)
    loss = total(kl_coef * kl_BT - surrogate_BT)
    return loss, {
        "kl": total(kl_BT),
        "tokens": share.sum(),
        "ratio_sum": jnp.sum(ratio_BT, where=batch.completion_mask_BT),
        "clipped_sum": jnp.sum(
            ratio_BT != clipped_BT, where=batch.completion_mask_BT, dtype=jnp.float32
        ),
    }


def k3(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
    """The low-variance estimate of KL(policy || reference) from samples of the policy.

    exp(d) - d - 1 with d = ref - policy (J. Schulman, "Approximating KL divergence").
    """
    difference = ref_logprobs - logprobs
    return jnp.exp(difference) - difference - 1


def importance_weights(batch: Batch, *, cap: float) -> jax.Array:
    """min(p_behavior / p_sampler, cap), [B, T]; 1 for the teacher's tokens."""
    ratio_BT = jnp.exp(batch.behavior_logprobs_BT - batch.sampler_logprobs_BT)
    return jnp.where(batch.teacher_mask_BT, 1.0, jnp.minimum(ratio_BT, cap))

"""GRPO's loss, token by token, and how tokens are weighted against each other."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.models.attention import Layout

PADDING = -1  # the segment of slots that hold no token


class Batch(flax.struct.PyTreeNode):
    """Trajectories behind their prompts: all that is ever sent to the devices.

    Each of K packs holds one prompt in P slots and C slots of completions of it, in
    stretches of `stretch` slots; no completion reaches over the end of a stretch.
    """

    prompts_KP: jax.Array  # int32, right-padded
    prompt_lengths_K: jax.Array  # int32, at least 1
    tokens_KC: jax.Array  # int32
    segments_KC: jax.Array  # int32: 1, 2, ... for the completions of a pack; PADDING
    offsets_KC: jax.Array  # int32: a token's place in its completion
    weights_KC: jax.Array  # float32: what the token counts; 0 where it is not trained
    teacher_KC: jax.Array  # bool: the token was written by the teacher
    advantages_KC: jax.Array  # float32: constant over a step, or over a trajectory
    sampler_logprobs_KC: jax.Array  # float32: the sampler's; 0 for the teacher's
    behavior_logprobs_KC: jax.Array | None = None  # float32: of the policy when the
    # batch was collected; None: it is this very policy
    ref_logprobs_KC: jax.Array | None = None  # float32: of the frozen reference
    stretch: int = flax.struct.field(pytree_node=False, default=0)

    def layout(self) -> Layout:
        """Positions and visibility of prompt and completions in one row."""
        packs, slots = self.prompts_KP.shape
        lengths_K1 = self.prompt_lengths_K[:, None]
        in_prompt = jnp.zeros((packs, slots), jnp.int32)
        return Layout(
            jnp.concatenate(
                [in_prompt + jnp.arange(slots)[None], lengths_K1 + self.offsets_KC], 1
            ),
            jnp.concatenate([in_prompt, self.segments_KC], 1),
            jnp.concatenate(
                [in_prompt, jnp.broadcast_to(lengths_K1, self.tokens_KC.shape)], 1
            ),
            prompt=slots,
            stretch=self.stretch,
        )

    def sources_KC(self) -> jax.Array:
        """For each completion token the slot of the token before it, whose hidden state
        predicts it."""
        slots = self.prompts_KP.shape[1] + jnp.arange(self.tokens_KC.shape[1])
        last_K1 = self.prompt_lengths_K[:, None] - 1
        return jnp.where(self.offsets_KC == 0, last_K1, slots[None] - 1)


def token_weights(
    trained_KC: np.ndarray,
    segments_KC: np.ndarray,
    *,
    aggregation: str,
    max_tokens: int,
) -> np.ndarray:
    """What each trained token counts in the loss: float32 [K, C], 0 where untrained.

    `grpo` averages within each trajectory, then over trajectories (arXiv:2402.03300,
    eq. 3); `dapo` over all tokens (arXiv:2503.14476, eq. 8); `dr_grpo` divides by the
    constant `max_tokens` instead, so that length is not rewarded (arXiv:2503.20783).
    A trajectory without trained tokens counts nowhere.
    """
    trained_KC = np.asarray(trained_KC, np.float32)
    packs = np.arange(len(segments_KC))[:, None]
    ids_KC = packs * (segments_KC.max(initial=0) + 1) + np.maximum(segments_KC, 0)
    tokens = np.bincount(ids_KC.ravel(), weights=trained_KC.ravel())
    trajectories = max((tokens > 0).sum(), 1)
    if aggregation == "grpo":
        weights_KC = trained_KC / np.maximum(tokens[ids_KC], 1) / trajectories
    elif aggregation == "dapo":
        weights_KC = trained_KC / max(tokens.sum(), 1)
    elif aggregation == "dr_grpo":
        weights_KC = trained_KC / (trajectories * max_tokens)
    else:
        raise ValueError(
            f"aggregation {aggregation!r} is not one of grpo, dapo, dr_grpo."
        )
    return weights_KC.astype(np.float32)


def policy_loss(
    logprobs: jax.Array,
    entropies: jax.Array,
    batch: Batch,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    entropy_coef: float = 0.0,
    importance_cap: float | None = None,
):
    """Clipped surrogate (eq. 4) plus k3 KL to the reference: (loss, sums of metrics).

    All arrays have one shape, any; the sums are by `batch.weights_KC`, so the losses of
    parts of a batch add up to the batch's. With `importance_cap` the student's own
    tokens are weighted by min(p_behavior / p_sampler, cap): what the sampler differs
    by, in its numerics or because it had older weights.
    """
    is_trained = batch.weights_KC > 0

    def trained(x):
        # An untrained position may hold inf or nan. It is taken out before `exp` too:
        # past that, a gradient of 0 times an overflow is nan.
        return jnp.where(is_trained, x, 0.0)

    def total(x):
        return jnp.sum(trained(x))

    behavior = batch.behavior_logprobs_KC
    if behavior is None:
        behavior = jax.lax.stop_gradient(logprobs)
    ratio = jnp.exp(trained(logprobs - behavior))
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    advantages = batch.advantages_KC
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    importance = {}
    if importance_cap is not None:
        weights = importance_weights(behavior, batch, cap=importance_cap)
        surrogate *= weights
        importance = {
            "importance_weight_sum": total(weights),
            "importance_capped_sum": total(weights == importance_cap),
        }
    kl = jnp.zeros_like(logprobs)
    if batch.ref_logprobs_KC is not None:
        kl = k3(trained(logprobs), trained(batch.ref_logprobs_KC))
    losses = kl_coef * kl - surrogate - entropy_coef * trained(entropies)
    own = jnp.where(batch.teacher_KC, 0.0, 1.0)
    mismatch = jnp.abs(trained(behavior - batch.sampler_logprobs_KC))
    return total(losses * batch.weights_KC), {
        "kl": total(kl * batch.weights_KC),
        "tokens": total(jnp.ones_like(ratio)),
        "own_tokens": total(own),
        "ratio_sum": total(ratio),
        "clipped_sum": total(ratio != clipped),
        "entropy_sum": total(entropies),
        "mismatch_sum": total(mismatch * own),
        **importance,
    }


def k3(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
    """The low-variance estimate of KL(policy || reference) from samples of the policy.

    exp(d) - d - 1 with d = ref - policy (J. Schulman, "Approximating KL divergence").
    """
    difference = ref_logprobs - logprobs
    return jnp.expm1(difference) - difference  # `exp` would round small ones away


def importance_weights(behavior_logprobs, batch: Batch, *, cap: float) -> jax.Array:
    """min(p_behavior / p_sampler, cap); 1 for the teacher's tokens."""
    ratio = jnp.exp(behavior_logprobs - batch.sampler_logprobs_KC)
    return jnp.where(batch.teacher_KC, 1.0, jnp.minimum(ratio, cap))

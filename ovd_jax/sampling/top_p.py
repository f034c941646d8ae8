"""Chooses a token of each row from its logits: greedy, or sampled by top-k and top-p.

The vocabulary is divided into Z blocks of W tokens: see docs/notation.md.
"""

import jax
import jax.numpy as jnp

_BLOCK = 256  # tokens of a block, whose probabilities are summed first
_UNDER_ONE = 1 - 1e-6  # keeps a draw below the last cumulative probability


def choose(
    logits_BV: jax.Array,
    rngs_B: jax.Array,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
) -> tuple[jax.Array, jax.Array]:
    """A token for each row and its log-probability under softmax(logits / temperature).

    Temperature 0 takes the likeliest token, with log-probabilities at temperature 1.
    The log-probability is that of the whole distribution, before top-k and top-p, which
    is what the learner recomputes.
    """
    logits_BV = logits_BV / (temperature or 1.0)
    if temperature == 0:
        tokens_B = jnp.argmax(logits_BV, axis=-1)
    else:
        kept_BV = keep_top_k(logits_BV, top_k) if top_k > 0 else logits_BV
        tokens_B = draw(kept_BV, rngs_B, top_p=top_p)
    picked_B = jnp.take_along_axis(logits_BV, tokens_B[:, None], axis=-1)[:, 0]
    logprobs_B = picked_B - jax.nn.logsumexp(logits_BV, axis=-1)
    return tokens_B.astype(jnp.int32), logprobs_B


def keep_top_k(logits_BV: jax.Array, k: int) -> jax.Array:
    """-inf for all but the `k` likeliest tokens (and those tied with the last)."""
    k = min(k, logits_BV.shape[-1])
    threshold_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
    return jnp.where(logits_BV >= threshold_B1, logits_BV, -jnp.inf)


def draw(logits_BV: jax.Array, rngs_B: jax.Array, *, top_p: float) -> jax.Array:
    """A token of each row from softmax(logits), int32 [B]; with `top_p` under 1 from
    the smallest set of likeliest tokens whose probability reaches it (and those tied
    with the last).

    The set is not sorted out. A token is in it if less than `top_p` lies on likelier
    ones; if a drawn token is not, the next is drawn from the likelier ones alone, which
    hold the set: about two passes over V and not a sort of it.
    """
    logits_BZW = _blocks(logits_BV)
    peak_B = logits_BV.max(-1)

    def masses_BZ(floor_B):
        """Unnormalized probability of each block's tokens above a floor."""
        weights_BZW = jnp.exp(logits_BZW - peak_B[:, None, None])
        return weights_BZW.sum(-1, where=logits_BZW > floor_B[:, None, None])

    floor_B = jnp.full(peak_B.shape, -jnp.inf)
    sums_BZ = masses_BZ(floor_B)
    tokens_B = _inverse(logits_BZW, peak_B, sums_BZ, floor_B, rngs_B)
    if top_p >= 1:
        return tokens_B
    enough_B = top_p * sums_BZ.sum(-1)

    def check(tokens_B):
        floor_B = jnp.take_along_axis(logits_BV, tokens_B[:, None], axis=-1)[:, 0]
        sums_BZ = masses_BZ(floor_B)
        likelier_B = sums_BZ.sum(-1)
        return floor_B, sums_BZ, (likelier_B < enough_B) | (likelier_B == 0)

    def again(carry):
        round_, tokens_B, (floor_B, sums_BZ, inside_B) = carry
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(rngs_B, round_)
        likelier_B = _inverse(logits_BZW, peak_B, sums_BZ, floor_B, keys_B)
        tokens_B = jnp.where(inside_B, tokens_B, likelier_B)
        return round_ + 1, tokens_B, check(tokens_B)

    first = (jnp.ones((), jnp.int32), tokens_B, check(tokens_B))
    return jax.lax.while_loop(lambda carry: ~carry[2][2].all(), again, first)[1]


def _inverse(logits_BZW, peak_B, sums_BZ, floor_B, rngs_B) -> jax.Array:
    """Draws a block by `sums_BZ`, then one of its tokens above the floor."""
    uniform_2B = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(rngs_B).T
    block_B = _first_above(sums_BZ, uniform_2B[0])
    logits_BW = jnp.take_along_axis(logits_BZW, block_B[:, None, None], axis=1)[:, 0]
    weights_BW = jnp.exp(logits_BW - peak_B[:, None])
    weights_BW = jnp.where(logits_BW > floor_B[:, None], weights_BW, 0.0)
    return block_B * logits_BZW.shape[-1] + _first_above(weights_BW, uniform_2B[1])


def _first_above(weights_BZ, uniform_B) -> jax.Array:
    """The index at which the running sum passes a share of the whole; never one of
    weight 0."""
    sums_BZ = jnp.cumsum(weights_BZ, axis=-1)
    share_B1 = jnp.minimum(uniform_B, _UNDER_ONE)[:, None]
    return jnp.sum(sums_BZ <= share_B1 * sums_BZ[:, -1:], axis=-1)


def _blocks(logits_BV) -> jax.Array:
    """[B, Z, W], with -inf behind the last token."""
    rows, size = logits_BV.shape
    block = min(_BLOCK, size)
    padded = jnp.pad(logits_BV, ((0, 0), (0, -size % block)), constant_values=-jnp.inf)
    return padded.reshape(rows, -1, block)

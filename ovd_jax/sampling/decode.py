"""Prefill and decode under jit: the device side of the sampler.

Axes as in `models/transformer.py`; here T counts the prompt's tokens, O the new ones.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from ovd_jax.models.transformer import Cache, Transformer, empty_cache

_BISECTIONS = 30  # halvings of the top-p threshold; the last interval is under 1e-8


class DecodeState(flax.struct.PyTreeNode):
    """B sequences in the middle of being sampled."""

    cache: Cache
    logits_BV: jax.Array  # float32: for the token that comes next
    tokens_BO: jax.Array  # int32: sampled so far, then zeros
    logprobs_BO: jax.Array  # float32: of those tokens
    done_B: jax.Array  # bool
    count: jax.Array  # int32: tokens sampled so far by the rows that go on


@functools.partial(jax.jit, static_argnames=("samples", "new_tokens"))
def prefill(model: Transformer, tokens_PT, valid_PT, active_B, *, samples, new_tokens):
    """Reads P left-padded prompts once and gives each `samples` rows to continue it."""
    prompts, length = tokens_PT.shape
    cache = empty_cache(model.config, prompts, length, model.dtype)
    hidden_PTD, cache = model.extend(tokens_PT, valid_PT, cache)
    logits_PV = next_logits(model, hidden_PTD[:, -1])

    def repeat(x, axis):
        return jnp.repeat(x, samples, axis=axis)

    def grow(x, axis):
        widths = [(0, new_tokens if a == axis else 0) for a in range(x.ndim)]
        return jnp.pad(repeat(x, axis - 1), widths)

    cache = Cache(
        grow(cache.keys_NBSKE, 2),
        grow(cache.values_NBSKE, 2),
        grow(cache.valid_BS, 1),
        cache.length,
    )
    rows = prompts * samples
    return DecodeState(
        cache=cache,
        logits_BV=repeat(logits_PV, 0),
        tokens_BO=jnp.zeros((rows, new_tokens), jnp.int32),
        logprobs_BO=jnp.zeros((rows, new_tokens), jnp.float32),
        done_B=~active_B,
        count=jnp.zeros((), jnp.int32),
    )


def next_logits(model: Transformer, hidden_BD) -> jax.Array:
    """Float32 logits [B, V] after the last hidden state."""
    return jnp.einsum(
        "BD,VD->BV", hidden_BD, model.head_VD, preferred_element_type=jnp.float32
    )


@functools.partial(
    jax.jit, static_argnames=("temperature", "top_k", "top_p"), donate_argnums=1
)
def decode(
    model: Transformer,
    state: DecodeState,
    keys_B,
    limits_B,
    stop_ids,
    until,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
) -> DecodeState:
    """Samples until every row is done or `until` tokens exist.

    A row is done after one of `stop_ids`, which it keeps, or at its limit. Token i of a
    row is drawn with fold_in(key of the row, i): other rows and padding cannot change
    it.
    """
    rows = jnp.arange(state.done_B.shape[0])

    def body(state: DecodeState) -> DecodeState:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, state.count)
        tokens_B, logprobs_B = choose(
            state.logits_BV, keys, temperature=temperature, top_k=top_k, top_p=top_p
        )
        going_B = ~state.done_B
        tokens_B = jnp.where(going_B, tokens_B, 0)
        stopped_B = (tokens_B[:, None] == stop_ids[None]).any(1)
        stopped_B |= state.count + 1 >= limits_B
        hidden_B1D, cache = model.extend(
            tokens_B[:, None], going_B[:, None], state.cache
        )
        return DecodeState(
            cache=cache,
            logits_BV=next_logits(model, hidden_B1D[:, 0]),
            tokens_BO=state.tokens_BO.at[rows, state.count].set(tokens_B),
            logprobs_BO=state.logprobs_BO.at[rows, state.count].set(
                jnp.where(going_B, logprobs_B, 0.0)
            ),
            done_B=state.done_B | stopped_B,
            count=state.count + 1,
        )

    def unfinished(state: DecodeState):
        return (state.count < until) & ~state.done_B.all()

    return jax.lax.while_loop(unfinished, body, state)


def choose(logits_BV, keys_B, *, temperature: float, top_k: int, top_p: float):
    """A token for each row and its log-probability under softmax(logits / temperature).

    Temperature 0 takes the likeliest token, with log-probabilities at temperature 1.
    The log-probability is that of the whole distribution, before top-k and top-p, which
    is what the learner recomputes.
    """
    logprobs_BV = jax.nn.log_softmax(logits_BV / (temperature or 1.0))
    if temperature == 0:
        tokens_B = jnp.argmax(logits_BV, axis=-1)
    else:
        kept_BV = logprobs_BV
        if top_k > 0:
            kept_BV = keep_top_k(kept_BV, top_k)
        if top_p < 1:
            kept_BV = keep_top_p(kept_BV, top_p)
        tokens_B = jax.vmap(jax.random.categorical)(keys_B, kept_BV)
    picked_B = jnp.take_along_axis(logprobs_BV, tokens_B[:, None], axis=-1)[:, 0]
    return tokens_B.astype(jnp.int32), picked_B


def keep_top_k(logprobs_BV, k: int) -> jax.Array:
    """-inf for all but the `k` likeliest tokens (and those tied with the last)."""
    k = min(k, logprobs_BV.shape[-1])
    threshold_B1 = jax.lax.top_k(logprobs_BV, k)[0][:, -1:]
    return jnp.where(logprobs_BV >= threshold_B1, logprobs_BV, -jnp.inf)


def keep_top_p(logprobs_BV, p: float) -> jax.Array:
    """-inf outside the smallest set of likeliest tokens whose probability reaches `p`.

    The probability threshold is found by bisection: thirty sums over V cost less than
    one sort of it.
    """
    probs_BV = jax.nn.softmax(logprobs_BV)
    low_B1 = jnp.zeros((probs_BV.shape[0], 1))
    high_B1 = probs_BV.max(-1, keepdims=True)

    def halve(_, bounds):
        low_B1, high_B1 = bounds
        middle_B1 = (low_B1 + high_B1) / 2
        mass_B1 = jnp.sum(probs_BV, -1, keepdims=True, where=probs_BV >= middle_B1)
        enough_B1 = mass_B1 >= p
        return (
            jnp.where(enough_B1, middle_B1, low_B1),
            jnp.where(enough_B1, high_B1, middle_B1),
        )

    low_B1, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (low_B1, high_B1))
    return jnp.where(probs_BV >= low_B1, logprobs_BV, -jnp.inf)

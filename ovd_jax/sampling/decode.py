"""Prefill and decode under jit: the device side of the sampler.

Each of P prompts has G rows that continue it: see docs/notation.md.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from ovd_jax.models.attention import attend_cached
from ovd_jax.models.sharding import split_rows
from ovd_jax.models.transformer import Transformer, embed_tokens, rope_frequencies
from ovd_jax.sampling.decoder import Decoder, next_logits
from ovd_jax.sampling.top_p import choose


class DecodeState(flax.struct.PyTreeNode):
    """P * G rows being sampled.

    Caches are tuples over the layers, in the layout that attention reads.
    """

    prompt_keys: tuple[jax.Array, ...]  # [P, K, E, T]
    prompt_values: tuple[jax.Array, ...]  # [P, K, T, E]
    lengths_P: jax.Array  # int32: of the prompts
    keys: tuple[jax.Array, ...]  # [P * G, K, E, Y]: a G of 1 would cost copies
    values: tuple[jax.Array, ...]  # [P * G, K, Y, E]
    tokens_PGY: jax.Array  # int32: the sampled tokens, then zeros
    logprobs_PGY: jax.Array  # float32: their log-probabilities
    done_PG: jax.Array  # bool
    limits_PG: jax.Array  # int32: most new tokens of a row
    rngs_PG: jax.Array  # random keys
    offsets_PG: jax.Array  # int32: a row's tokens that are in its prompt's cache
    count: jax.Array  # int32: new tokens of every unfinished row


@jax.jit
def row_rngs(seed: int, rows_PG: jax.Array) -> jax.Array:
    """fold_in(key(seed), row) for every row."""
    return jax.vmap(
        jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))
    )(rows_PG)


@functools.partial(jax.jit, static_argnames=("slots", "temperature", "top_k", "top_p"))
def prefill(
    model: Transformer,
    tokens_PT: jax.Array,
    lengths_P: jax.Array,
    limits_PG: jax.Array,
    rngs_PG: jax.Array,
    stop_ids: jax.Array,
    *,
    slots: int,
    **sampling: Any,
) -> DecodeState:
    """Reads right-padded prompts once and samples the first token of every row.

    Rows have room for `slots` new tokens; `sampling` is passed to `choose`.
    """
    hidden_PTD, keys_NPTKE, values_NPTKE = model.read(tokens_PT)
    last_P1D = jnp.take_along_axis(hidden_PTD, lengths_P[:, None, None] - 1, axis=1)
    logits_PV = next_logits(last_P1D[:, 0], model.head_VD)
    grid = limits_PG.shape
    heads, size = keys_NPTKE.shape[-2:]
    state = DecodeState(
        prompt_keys=tuple(jnp.einsum("NPTKE->NPKET", keys_NPTKE)),
        prompt_values=tuple(jnp.einsum("NPTKE->NPKTE", values_NPTKE)),
        lengths_P=lengths_P,
        keys=tuple(
            jnp.zeros((limits_PG.size, heads, size, slots), x.dtype) for x in keys_NPTKE
        ),
        values=tuple(
            jnp.zeros((limits_PG.size, heads, slots, size), x.dtype)
            for x in values_NPTKE
        ),
        tokens_PGY=jnp.zeros((*grid, slots), jnp.int32),
        logprobs_PGY=jnp.zeros((*grid, slots), jnp.float32),
        done_PG=limits_PG <= 0,
        limits_PG=limits_PG,
        rngs_PG=rngs_PG,
        offsets_PG=jnp.zeros(grid, jnp.int32),
        count=jnp.zeros((), jnp.int32),
    )
    logits_BV = jnp.repeat(logits_PV, grid[1], 0)
    return split_state(append(state, logits_BV, stop_ids, **sampling))


def split_state(state: DecodeState) -> DecodeState:
    """Splits every array over the mesh by prompts."""
    return jax.tree.map(lambda x: split_rows(x) if x.ndim else x, state)


@functools.partial(
    jax.jit,
    static_argnames=("temperature", "top_k", "top_p"),
    donate_argnames="state",
)
def decode(
    decoder: Decoder,
    state: DecodeState,
    stop_ids: jax.Array,
    until: int,
    **sampling: Any,
) -> DecodeState:
    """Samples until every row is done or has `until` new tokens."""

    def body(state: DecodeState) -> DecodeState:
        logits_BV, state = step(decoder, state)
        return append(state, logits_BV, stop_ids, **sampling)

    def unfinished(state: DecodeState):
        return (state.count < until) & ~state.done_PG.all()

    return jax.lax.while_loop(unfinished, body, state)


def step(decoder: Decoder, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Reads the last token of every row: (logits of the next [P * G, V], state)."""
    place = state.count - 1
    tokens_PG = jax.lax.dynamic_index_in_dim(
        state.tokens_PGY, place, axis=2, keepdims=False
    )
    positions_PG = jnp.broadcast_to(state.lengths_P[:, None] + place, tokens_PG.shape)
    frequencies = rope_frequencies(decoder.config)
    x_PGD = embed_tokens(decoder.embed, tokens_PG)
    keys, values = [], []
    for n, layer in enumerate(decoder.layers):
        q, k, v = layer.project(x_PGD, positions_PG, frequencies)
        put = jax.lax.dynamic_update_index_in_dim
        k, v = (x.reshape(-1, *x.shape[2:]) for x in (k, v))
        keys.append(put(state.keys[n], k, place, axis=3))
        values.append(put(state.values[n], v, place, axis=2))
        prompt = (state.prompt_keys[n], state.prompt_values[n])
        own = (keys[n], values[n])
        mixed_PGD = attend_cached(q, prompt, own, state.lengths_P, place)
        x_PGD = layer.finish(x_PGD, mixed_PGD)
    x_BD = decoder.norm(x_PGD).reshape(-1, x_PGD.shape[-1])
    state = state.replace(keys=tuple(keys), values=tuple(values))
    return next_logits(x_BD, decoder.head_VD), state


def append(
    state: DecodeState, logits_BV: jax.Array, stop_ids: jax.Array, **sampling: Any
) -> DecodeState:
    """Samples a token for every unfinished row.

    A row is done after one of `stop_ids`, which it keeps, or at its limit. Token i of a
    row is drawn with fold_in(key of the row, i), so other rows and padding do not
    change it.
    """
    grid = state.done_PG.shape
    places_B = (state.offsets_PG + state.count).ravel()
    rngs_B = jax.vmap(jax.random.fold_in)(state.rngs_PG.ravel(), places_B)
    drawn = choose(logits_BV, rngs_B, **sampling)
    tokens_PG, logprobs_PG = (
        jnp.where(state.done_PG, 0, x.reshape(grid)) for x in drawn
    )
    stopped_PG = (tokens_PG[..., None] == stop_ids[None, None]).any(-1)
    stopped_PG |= state.count + 1 >= state.limits_PG

    def put(history_PGY, new_PG):
        return jax.lax.dynamic_update_index_in_dim(
            history_PGY, new_PG, state.count, axis=2
        )

    return state.replace(
        tokens_PGY=put(state.tokens_PGY, tokens_PG),
        logprobs_PGY=put(state.logprobs_PGY, logprobs_PG),
        done_PG=state.done_PG | stopped_PG,
        count=state.count + 1,
    )


@functools.partial(jax.jit, static_argnames="slots")
def regroup(state: DecodeState, cells_PG: jax.Array, *, slots: int) -> DecodeState:
    """The rows numbered `cells_PG` in a new grid, with room for `slots` tokens.

    All rows of a line must share a prompt.
    """
    lines_P = cells_PG[:, 0] // state.done_PG.shape[1]

    def line(x):
        return x[lines_P]

    def row(x):
        return x.reshape(-1, *x.shape[2:])[cells_PG]

    def grown(x, axis):
        more = [(0, 0)] * x.ndim
        more[axis] = (0, slots - x.shape[axis])
        return jnp.pad(x, more)

    return split_state(
        DecodeState(
            prompt_keys=jax.tree.map(line, state.prompt_keys),
            prompt_values=jax.tree.map(line, state.prompt_values),
            lengths_P=line(state.lengths_P),
            keys=tuple(grown(x[cells_PG.ravel()], 3) for x in state.keys),
            values=tuple(grown(x[cells_PG.ravel()], 2) for x in state.values),
            tokens_PGY=grown(row(state.tokens_PGY), 2),
            logprobs_PGY=grown(row(state.logprobs_PGY), 2),
            done_PG=row(state.done_PG),
            limits_PG=row(state.limits_PG),
            rngs_PG=row(state.rngs_PG),
            offsets_PG=row(state.offsets_PG),
            count=state.count,
        )
    )

"""Rows that go on after they have read something: the device side of conversations.

Axes as in `sampling/decode.py`; B rows, the first J of which read W tokens each.
"""

import functools

import jax
import jax.numpy as jnp

from ovd_jax.learning.sharding import split_rows
from ovd_jax.models.attention import attend_behind
from ovd_jax.models.transformer import embed_tokens, rope_frequencies
from ovd_jax.sampling.decode import Decoder, DecodeState, split_state


@functools.partial(jax.jit, static_argnames=("width", "slots"))
def rejoin(
    decoder: Decoder,
    state: DecodeState,
    cells_B,
    own_B,
    reads_JW,
    counts_J,
    lasts_B,
    limits_B,
    rngs_B,
    offsets_B,
    *,
    width: int,
    slots: int,
) -> DecodeState:
    """The rows numbered `cells_B`, each in a line of its own, at one count again.

    Of what a row has sampled the first `own_B` tokens stay: their keys and values move
    behind the prompt's, into a cache of `width`. There the first J rows read on
    `counts_J` of the tokens `reads_JW`. `lasts_B`, the last token of each row, is then
    still to be read, as after every sampled token; there is room for `slots` with it.
    """
    lines_B = cells_B // state.done_PG.shape[1]
    lengths_B = state.lengths_P[lines_B]

    def moved(prompt, own, axis):
        # Whatever is behind the tokens that count is overwritten or never seen.
        room = width + own.shape[axis]
        prompt, own = prompt[lines_B], own[cells_B]
        pads = [(0, 0)] * prompt.ndim
        pads[axis] = (0, max(0, room - prompt.shape[axis]))
        joined = put_behind(jnp.pad(prompt, pads), own, lengths_B, axis)
        return jax.lax.slice_in_dim(joined, 0, width, axis=axis)

    pairs = zip(state.prompt_keys, state.keys, strict=True)
    keys = [split_rows(moved(prompt, own, 3)) for prompt, own in pairs]
    pairs = zip(state.prompt_values, state.values, strict=True)
    values = [split_rows(moved(prompt, own, 2)) for prompt, own in pairs]
    lengths_B += own_B
    keys, values = read_behind(decoder, keys, values, lengths_B, reads_JW)
    grid = (len(cells_B), 1)

    def room(x, shape):
        return jnp.zeros((len(cells_B), x.shape[1], *shape), x.dtype)

    size = decoder.config.head_dim
    return split_state(
        DecodeState(
            prompt_keys=tuple(keys),
            prompt_values=tuple(values),
            lengths_P=lengths_B.at[: len(counts_J)].add(counts_J),
            keys=tuple(room(x, (size, slots)) for x in keys),
            values=tuple(room(x, (slots, size)) for x in values),
            tokens_PGO=jnp.zeros((*grid, slots), jnp.int32).at[:, 0, 0].set(lasts_B),
            logprobs_PGO=jnp.zeros((*grid, slots), jnp.float32),
            done_PG=(limits_B <= 1)[:, None],
            limits_PG=limits_B[:, None],
            rngs_PG=rngs_B,
            offsets_PG=offsets_B[:, None],
            count=jnp.ones((), jnp.int32),
        )
    )


def read_behind(decoder: Decoder, keys, values, lengths_B, reads_JW):
    """The caches [B, K, E, T] and [B, K, T, E] of all layers after the first J rows
    have read `reads_JW` behind their `lengths_B` tokens."""
    rows, width = reads_JW.shape
    if not rows:
        return keys, values
    lengths_J = lengths_B[:rows]
    positions_JW = lengths_J[:, None] + jnp.arange(width)[None]
    frequencies = rope_frequencies(decoder.config)
    x_JWD = embed_tokens(decoder.embed, reads_JW)
    read_keys, read_values = [], []
    for layer, all_k, all_v in zip(decoder.layers, keys, values, strict=True):
        x_JWD = split_rows(x_JWD)
        q, k, v = layer.project(x_JWD, positions_JW, frequencies)
        k = put_behind(all_k[:rows], jnp.einsum("JWKE->JKEW", k), lengths_J, 3)
        v = put_behind(all_v[:rows], jnp.einsum("JWKE->JKWE", v), lengths_J, 2)
        x_JWD = layer.finish(x_JWD, attend_behind(q, k, v, lengths_J))
        read_keys.append(split_rows(all_k.at[:rows].set(k)))
        read_values.append(split_rows(all_v.at[:rows].set(v)))
    return read_keys, read_values


def put_behind(cache, new, lengths_B, axis: int) -> jax.Array:
    """`cache` with `new` put along `axis` behind the first `lengths_B` of each row."""
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1)
    return jax.vmap(put)(cache, new.astype(cache.dtype), lengths_B)

"""Continues rows after they read an observation: the device side of conversations.

Of B rows the first J read W tokens each: see docs/notation.md.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ovd_jax.models.attention import attend_behind
from ovd_jax.models.sharding import split_rows
from ovd_jax.models.transformer import embed_tokens, rope_frequencies
from ovd_jax.sampling.decode import DecodeState, split_state
from ovd_jax.sampling.decoder import Decoder


@functools.partial(jax.jit, static_argnames=("width", "slots"))
def repack_cache(
    state: DecodeState,
    cells_B: jax.Array,
    own_B: jax.Array,
    lasts_B: jax.Array,
    limits_B: jax.Array,
    rngs_B1: jax.Array,
    offsets_B: jax.Array,
    *,
    width: int,
    slots: int,
) -> DecodeState:
    """Gives each row numbered `cells_B` a prompt cache of its own and a common count.

    The keys and values of a row's first `own_B` new tokens move behind those of its
    prompt, into a cache of `width` tokens. `lasts_B`, each row's last token, is not
    read yet, as after every sampled token. There is room for `slots` new tokens,
    including that one.
    """
    lines_B = cells_B // state.done_PG.shape[1]
    lengths_B = state.lengths_P[lines_B]
    moved = functools.partial(
        move_behind, cells_B=cells_B, lines_B=lines_B, lengths_B=lengths_B, width=width
    )
    rows, grid = len(cells_B), (len(cells_B), 1, slots)
    return split_state(
        DecodeState(
            prompt_keys=moved(state.prompt_keys, state.keys, axis=3),
            prompt_values=moved(state.prompt_values, state.values, axis=2),
            lengths_P=lengths_B + own_B,
            keys=tuple(empty(x, rows, slots, axis=3) for x in state.keys),
            values=tuple(empty(x, rows, slots, axis=2) for x in state.values),
            tokens_PGY=jnp.zeros(grid, jnp.int32).at[:, 0, 0].set(lasts_B),
            logprobs_PGY=jnp.zeros(grid, jnp.float32),
            done_PG=limits_B[:, None] <= 1,
            limits_PG=limits_B[:, None],
            rngs_PG=rngs_B1,
            offsets_PG=offsets_B[:, None],
            count=jnp.ones((), jnp.int32),
        )
    )


def move_behind(
    prompts: Sequence[jax.Array],
    owns: Sequence[jax.Array],
    *,
    cells_B: jax.Array,
    lines_B: jax.Array,
    lengths_B: jax.Array,
    width: int,
    axis: int,
) -> tuple[jax.Array, ...]:
    """For every layer: each row's prompt cache with the row's own cache behind it,
    `width` tokens along `axis`."""

    def moved(prompt, own):
        # Anything behind the row's tokens is overwritten or masked.
        room = width + own.shape[axis]
        pads = [(0, 0)] * prompt.ndim
        pads[axis] = (0, max(0, room - prompt.shape[axis]))
        prompt = jnp.pad(prompt[lines_B], pads)
        joined = put_behind(prompt, own[cells_B], lengths_B, axis)
        return split_rows(jax.lax.slice_in_dim(joined, 0, width, axis=axis))

    return tuple(map(moved, prompts, owns))


def empty(cache: jax.Array, rows: int, slots: int, *, axis: int) -> jax.Array:
    """A cache of `rows` rows with room for `slots` tokens along `axis`."""
    shape = [*cache.shape]
    shape[0], shape[axis] = rows, slots
    return jnp.zeros(shape, cache.dtype)


@functools.partial(jax.jit, donate_argnames="state")
def prefill_observation(
    decoder: Decoder, state: DecodeState, reads_JW: jax.Array, counts_J: jax.Array
) -> DecodeState:
    """Prefills the caches of the first J rows with `counts_J` of the tokens `reads_JW`;
    samples nothing."""
    rows, width = reads_JW.shape
    lengths_J = state.lengths_P[:rows]
    positions_JW = lengths_J[:, None] + jnp.arange(width)[None]
    frequencies = rope_frequencies(decoder.config)
    x_JWD = embed_tokens(decoder.embed, reads_JW)
    keys, values = [], []
    caches = zip(decoder.layers, state.prompt_keys, state.prompt_values, strict=True)
    for layer, all_k, all_v in caches:
        x_JWD = split_rows(x_JWD)
        q, k, v = layer.project(x_JWD, positions_JW, frequencies)
        k = put_behind(all_k[:rows], jnp.einsum("JWKE->JKEW", k), lengths_J, 3)
        v = put_behind(all_v[:rows], jnp.einsum("JWKE->JKWE", v), lengths_J, 2)
        x_JWD = layer.finish(x_JWD, attend_behind(q, k, v, lengths_J))
        keys.append(split_rows(all_k.at[:rows].set(k)))
        values.append(split_rows(all_v.at[:rows].set(v)))
    return state.replace(
        prompt_keys=tuple(keys),
        prompt_values=tuple(values),
        lengths_P=split_rows(state.lengths_P.at[:rows].add(counts_J)),
    )


def put_behind(
    cache: jax.Array, new: jax.Array, lengths_B: jax.Array, axis: int
) -> jax.Array:
    """Writes `new` into `cache` along `axis`, behind the first `lengths_B` entries of
    each row."""
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1)
    return jax.vmap(put)(cache, new.astype(cache.dtype), lengths_B)

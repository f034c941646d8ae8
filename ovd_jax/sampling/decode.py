"""Prefill and decode under jit: the device side of the sampler.

Axes as in `models/transformer.py`; here P prompts have G rows each that go on from
them, T counts a prompt's tokens and O the new ones of a row.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from ovd_jax.learning.sharding import gather_fsdp, split_rows
from ovd_jax.models.attention import attend_cached
from ovd_jax.models.transformer import (
    Layer,
    Transformer,
    TransformerConfig,
    embed_tokens,
    rope_frequencies,
)

_BISECTIONS = 30  # halvings of the top-p threshold; the last interval is under 1e-8


class Decoder(flax.struct.PyTreeNode):
    """A model as decoding reads it, one token of each row at a time.

    Its layers lie apart, for a slice of a stacked weight would be copied at every step,
    and matrices have the dtype that is computed in.
    """

    embed: nnx.Embed
    layers: tuple[Layer, ...]
    norm: nnx.RMSNorm
    head_VD: jax.Array
    config: TransformerConfig = flax.struct.field(pytree_node=False)


class DecodeState(flax.struct.PyTreeNode):
    """P * G rows in the middle of being sampled; caches are tuples over the layers."""

    prompt_keys: tuple[jax.Array, ...]  # [P, T, K, E]
    prompt_values: tuple[jax.Array, ...]
    lengths_P: jax.Array  # int32: of the prompts
    keys: tuple[jax.Array, ...]  # [P, G, O, K, E]
    values: tuple[jax.Array, ...]
    tokens_PGO: jax.Array  # int32: sampled so far, then zeros
    logprobs_PGO: jax.Array  # float32: of those tokens
    done_PG: jax.Array  # bool
    limits_PG: jax.Array  # int32: tokens a row may have
    rngs_PG: jax.Array  # random keys
    count: jax.Array  # int32: tokens sampled so far by the rows that go on


@jax.jit
def unstack(model: Transformer) -> Decoder:
    """The model for decoding; matrices are cast, and gathered over the mesh's `fsdp`,
    once and not at every step."""

    def cast(x):
        return x.astype(model.dtype) if x.ndim > 1 else x

    layers = tuple(
        jax.tree.map(lambda x, n=n: cast(x[n]), model.layers)
        for n in range(model.config.num_layers)
    )
    parts = jax.tree_util.tree_map_with_path(
        gather_fsdp, {"layers": layers, "head": model.head_VD}
    )
    return Decoder(
        model.embed, parts["layers"], model.norm, parts["head"], config=model.config
    )


@jax.jit
def row_rngs(seed, rows_PG) -> jax.Array:
    """fold_in(key(seed), row) for every row."""
    return jax.vmap(
        jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))
    )(rows_PG)


@functools.partial(jax.jit, static_argnames=("slots", "temperature", "top_k", "top_p"))
def prefill(
    model: Transformer,
    tokens_PT,
    lengths_P,
    limits_PG,
    rngs_PG,
    stop_ids,
    *,
    slots: int,
    **sampling,
) -> DecodeState:
    """Reads right-padded prompts once and samples the first token of every row.

    Rows have room for `slots` tokens; `sampling` is for `choose`.
    """
    hidden_PTD, *caches = model.read(tokens_PT)
    last_P1D = jnp.take_along_axis(hidden_PTD, lengths_P[:, None, None] - 1, axis=1)
    logits_PV = next_logits(last_P1D[:, 0], model.head_VD)
    grid = limits_PG.shape
    cache = (*grid, slots, *caches[0].shape[-2:])
    prompt_keys, prompt_values = (tuple(cache) for cache in caches)
    state = DecodeState(
        prompt_keys=prompt_keys,
        prompt_values=prompt_values,
        lengths_P=lengths_P,
        keys=tuple(jnp.zeros(cache, x.dtype) for x in prompt_keys),
        values=tuple(jnp.zeros(cache, x.dtype) for x in prompt_values),
        tokens_PGO=jnp.zeros((*grid, slots), jnp.int32),
        logprobs_PGO=jnp.zeros((*grid, slots), jnp.float32),
        done_PG=limits_PG <= 0,
        limits_PG=limits_PG,
        rngs_PG=rngs_PG,
        count=jnp.zeros((), jnp.int32),
    )
    logits_PGV = jnp.broadcast_to(logits_PV[:, None], (*grid, logits_PV.shape[-1]))
    return split_state(append(state, logits_PGV, stop_ids, **sampling))


def split_state(state: DecodeState) -> DecodeState:
    """Every array over the mesh by its prompts."""
    return jax.tree.map(lambda x: split_rows(x) if x.ndim else x, state)


def next_logits(hidden_BD, head_VD) -> jax.Array:
    """Float32 logits [B, V] after the last hidden state."""
    return jnp.einsum(
        "BD,VD->BV", hidden_BD, head_VD, preferred_element_type=jnp.float32
    )


@functools.partial(
    jax.jit,
    static_argnames=("temperature", "top_k", "top_p"),
    donate_argnames="state",
)
def decode(
    decoder: Decoder, state: DecodeState, stop_ids, until, **sampling
) -> DecodeState:
    """Samples on until every row is done or `until` tokens exist."""

    def body(state: DecodeState) -> DecodeState:
        logits_PGV, state = step(decoder, state)
        return append(state, logits_PGV, stop_ids, **sampling)

    def unfinished(state: DecodeState):
        return (state.count < until) & ~state.done_PG.all()

    return jax.lax.while_loop(unfinished, body, state)


def step(decoder: Decoder, state: DecodeState):
    """Reads the last token of every row: (logits for the next one, state)."""
    place = state.count - 1
    tokens_PG = jax.lax.dynamic_index_in_dim(
        state.tokens_PGO, place, axis=2, keepdims=False
    )
    positions_PG = jnp.broadcast_to(state.lengths_P[:, None] + place, tokens_PG.shape)
    frequencies = rope_frequencies(decoder.config)
    x_PGD = embed_tokens(decoder.embed, tokens_PG)
    keys, values = [], []
    for n, layer in enumerate(decoder.layers):
        q, k, v = layer.project(x_PGD, positions_PG, frequencies)
        own = [
            jax.lax.dynamic_update_index_in_dim(cache[n], new, place, axis=2)
            for cache, new in ((state.keys, k), (state.values, v))
        ]
        prompt = (state.prompt_keys[n], state.prompt_values[n])
        mixed_PGD = attend_cached(q, prompt, own, state.lengths_P, place)
        x_PGD = layer.finish(x_PGD, mixed_PGD)
        keys.append(own[0])
        values.append(own[1])
    logits_PGV = jnp.einsum(
        "PGD,VD->PGV", decoder.norm(x_PGD), decoder.head_VD,
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    return logits_PGV, state.replace(keys=tuple(keys), values=tuple(values))


def append(state: DecodeState, logits_PGV, stop_ids, **sampling) -> DecodeState:
    """Samples a token for every row that goes on.

    A row is done after one of `stop_ids`, which it keeps, or at its limit. Token i of a
    row is drawn with fold_in(key of the row, i): other rows and padding cannot change
    it.
    """
    grid = state.done_PG.shape
    rngs_B = jax.vmap(jax.random.fold_in, (0, None))(state.rngs_PG.ravel(), state.count)
    logits_BV = logits_PGV.reshape(-1, logits_PGV.shape[-1])
    drawn = choose(logits_BV, rngs_B, **sampling)
    tokens_PG, logprobs_PG = (
        jnp.where(state.done_PG, 0, x.reshape(grid)) for x in drawn
    )
    stopped_PG = (tokens_PG[..., None] == stop_ids[None, None]).any(-1)
    stopped_PG |= state.count + 1 >= state.limits_PG

    def put(history_PGO, new_PG):
        return jax.lax.dynamic_update_index_in_dim(
            history_PGO, new_PG, state.count, axis=2
        )

    return state.replace(
        tokens_PGO=put(state.tokens_PGO, tokens_PG),
        logprobs_PGO=put(state.logprobs_PGO, logprobs_PG),
        done_PG=state.done_PG | stopped_PG,
        count=state.count + 1,
    )


@functools.partial(jax.jit, static_argnames="slots")
def regroup(state: DecodeState, cells_PG, *, slots: int) -> DecodeState:
    """The rows numbered `cells_PG` in a new grid, with room for `slots` tokens.

    All rows of a line must have shared a prompt.
    """
    lines_P = cells_PG[:, 0] // state.done_PG.shape[1]

    def line(x):
        return x[lines_P]

    def row(x):
        return x.reshape(-1, *x.shape[2:])[cells_PG]

    def grown(x):
        more = [(0, 0)] * x.ndim
        more[2] = (0, slots - x.shape[2])
        return jnp.pad(row(x), more)

    return split_state(
        DecodeState(
            prompt_keys=jax.tree.map(line, state.prompt_keys),
            prompt_values=jax.tree.map(line, state.prompt_values),
            lengths_P=line(state.lengths_P),
            keys=jax.tree.map(grown, state.keys),
            values=jax.tree.map(grown, state.values),
            tokens_PGO=grown(state.tokens_PGO),
            logprobs_PGO=grown(state.logprobs_PGO),
            done_PG=row(state.done_PG),
            limits_PG=row(state.limits_PG),
            rngs_PG=row(state.rngs_PG),
            count=state.count,
        )
    )


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

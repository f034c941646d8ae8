"""Visibility between tokens, and attention that skips masked blocks.

A row is a prompt of X slots and Z bins of W slots behind it: see docs/notation.md.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ovd_jax.models.sharding import ROWS, Array, platform, row_shards

FORMS = ("auto", "blocked")  # of attention: what suits the platform, or the one for all
_SPLASH_SLOTS = 1 << 15  # of a row: two slots must fit into an int32
_BLOCK = 256  # queries whose scores are alive at once
_SPANS = 8  # key ranges of a bin: 12 % more scores than blocks of their own need
_HIDDEN = -1e30  # a score that no softmax sees, and finite: padding may see nothing


class Layout(flax.struct.PyTreeNode):
    """The visibility between the tokens of a row, beyond plain causality.

    A token sees the first `prefix` tokens of its row and its own segment up to itself:
    several continuations can follow one text without seeing each other. With `bin_size`
    set, the first `prompt` slots are followed by bins of that size. A segment stays in
    one bin with its slots adjacent, and all segments of a row see one prefix, of the
    prompt. So attention costs the square of a bin, not of the row.
    """

    positions_BT: Array  # int32: for the rotary embedding
    segments_BT: Array  # int32
    prefix_BT: Array  # int32
    prompt: int = flax.struct.field(pytree_node=False, default=0)
    bin_size: int | None = flax.struct.field(pytree_node=False, default=None)

    def mask_BTS(self) -> Array:
        """True where token t sees token s."""
        slots = jnp.broadcast_to(
            jnp.arange(self.segments_BT.shape[1]), self.segments_BT.shape
        )
        tokens = (slots, self.segments_BT, self.prefix_BT)
        return sees(tokens, tokens)


def causal(batch: int, length: int) -> Layout:
    """The layout of plain causality."""
    zeros = jnp.zeros((batch, length), jnp.int32)
    return Layout(zeros + jnp.arange(length)[None], zeros, zeros, bin_size=length)


def sees(
    queries: tuple[Array, Array, Array], keys: tuple[Array, Array, Array]
) -> Array:
    """True where a query sees a key; each is (slots, segments, prefixes)."""
    slot_T, segment_T, prefix_T = (x[..., :, None] for x in queries)
    slot_S, segment_S, _ = (x[..., None, :] for x in keys)
    return (slot_S < prefix_T) | ((segment_S == segment_T) & (slot_S <= slot_T))


def attend(
    q_BTHE: jax.Array,
    k_BTKE: jax.Array,
    v_BTKE: jax.Array,
    layout: Layout,
    *,
    form: str = "auto",
) -> jax.Array:
    """Grouped-query attention under `layout`; [B, T, H*E].

    On TPUs the kernel of `models/splash.py`, if it supports the rows; elsewhere in
    blocks. (cuDNN's kernel needs the mask as an array of the row's square, cannot be
    lowered without a GPU, and does not exist for ROCm.)
    """
    if form == "auto" and platform() == "tpu" and _suits_splash(layout):
        mixed_BTHE = _splash(q_BTHE, k_BTKE, v_BTKE, layout)
        return mixed_BTHE.reshape(*mixed_BTHE.shape[:2], -1)
    return attend_blocked(q_BTHE, k_BTKE, v_BTKE, layout)


def _suits_splash(layout: Layout) -> bool:
    rows, length = layout.segments_BT.shape
    splits = rows % row_shards() == 0
    return layout.bin_size is not None and length <= _SPLASH_SLOTS and splits


def _splash(q_BTHE, k_BTKE, v_BTKE, layout: Layout) -> jax.Array:
    """Runs the kernel on the rows and heads of each device."""
    from ovd_jax.models import splash  # Pallas takes its time, and others need none

    if jax.sharding.get_abstract_mesh().empty:
        return splash.attend(q_BTHE, k_BTKE, v_BTKE, layout)
    heads = P(*ROWS, None, "tp")
    run = jax.shard_map(
        splash.attend, in_specs=(heads, heads, heads, ROWS), out_specs=heads,
        check_vma=False,
    )  # fmt: skip
    return run(q_BTHE, k_BTKE, v_BTKE, layout)


def attend_blocked(
    q_BTHE: jax.Array, k_BTKE: jax.Array, v_BTKE: jax.Array, layout: Layout
) -> jax.Array:
    """Like `attend`, on any platform.

    Computes the scores of one block of queries at a time, against the prompt and the
    earlier part of their bin.
    """
    batch, length, heads, size = q_BTHE.shape
    slots_BT = jnp.broadcast_to(jnp.arange(length), (batch, length))
    tokens = (slots_BT, layout.segments_BT, layout.prefix_BT)
    everything = (q_BTHE, k_BTKE, v_BTKE, tokens)
    prompt, width = layout.prompt, layout.bin_size or length
    rest = jax.tree.map(
        lambda x: x[:, prompt:].reshape(batch, -1, width, *x.shape[2:]), everything
    )
    if not prompt:
        return _attend_bins(*rest, prompt=None).reshape(batch, length, heads * size)
    first = jax.tree.map(lambda x: x[:, None, :prompt], everything)
    keys = jax.tree.map(lambda x: x[:, :prompt], everything[1:])
    mixed = (_attend_bins(*first, prompt=None), _attend_bins(*rest, prompt=keys))
    mixed = [x.reshape(batch, -1, heads * size) for x in mixed]
    return jnp.concatenate(mixed, axis=1)


def attend_cached(
    q_PGHE: jax.Array,
    prompt: tuple[jax.Array, jax.Array],
    own: tuple[jax.Array, jax.Array],
    lengths_P: jax.Array,
    count: jax.Array,
) -> jax.Array:
    """Attention of one new token in each of G rows that share a prompt; [P, G, H*E].

    `prompt` holds keys [P, K, E, S] and values [P, K, S, E], of which a row sees
    `lengths_P`; `own` [P*G, K, E, O] and [P*G, K, O, E], of which it sees `count` and
    its new token behind them. The two are read one after the other, as flash attention
    reads blocks (arXiv:2205.14135, sec. 3.1): each in the order it is kept in.
    """
    prompts, rows, _, size = q_PGHE.shape
    (prompt_k, prompt_v), (own_k, own_v) = prompt, own
    groups = own_k.shape[1]
    q = (q_PGHE * size**-0.5).reshape(prompts, rows, groups, -1, size)
    slots_O, slots_S = jnp.arange(own_k.shape[-1]), jnp.arange(prompt_k.shape[-1])
    sees_own = (slots_O <= count)[None, None, None]
    mine = _summarize(q.reshape(-1, *q.shape[2:]), own_k, own_v, sees_own)
    # The rows of a prompt are the queries of one product.
    q = q.swapaxes(1, 2).reshape(prompts, groups, -1, size)
    sees_prompt = (slots_S[None] < lengths_P[:, None])[:, None, None]
    shared = [
        x.reshape(prompts, groups, rows, -1, x.shape[-1])
        .swapaxes(1, 2)
        .reshape(prompts * rows, groups, -1, x.shape[-1])
        for x in _summarize(q, prompt_k, prompt_v, sees_prompt)
    ]
    peak = jnp.maximum(mine[0], shared[0])
    mixed, total = 0.0, 0.0
    for peak_of_part, sum_of_part, mixed_of_part in (mine, shared):
        scale = jnp.exp(peak_of_part - peak)
        total += scale * sum_of_part
        mixed += scale * mixed_of_part
    return (mixed / total).astype(own_v.dtype).reshape(prompts, rows, -1)


def attend_behind(
    q_BTHE: jax.Array, k_BKES: jax.Array, v_BKSE: jax.Array, lengths_B: jax.Array
) -> jax.Array:
    """Attention of T new tokens behind the first `lengths_B` slots of a cache, each to
    all tokens before it and itself; [B, T, H*E]."""
    batch, length, heads, size = q_BTHE.shape
    groups = k_BKES.shape[1]
    q = (q_BTHE * size**-0.5).reshape(batch, length, groups, -1, size)
    slots_S = jnp.arange(k_BKES.shape[-1])
    blocks = []
    for start in range(0, length, _BLOCK):
        part = q[:, start : start + _BLOCK].swapaxes(1, 2)  # [B, K, T, Q, E]
        places_BT = lengths_B[:, None] + start + jnp.arange(part.shape[2])[None]
        sees_BTS = slots_S[None, None] <= places_BT[:, :, None]
        sees = jnp.repeat(sees_BTS, part.shape[3], axis=1)[:, None]
        rows = part.reshape(batch, groups, -1, size)
        _, total, mixed = _summarize(rows, k_BKES, v_BKSE, sees)
        mixed = (mixed / total).astype(v_BKSE.dtype).reshape(part.shape)
        blocks.append(mixed.swapaxes(1, 2).reshape(batch, -1, heads * size))
    return jnp.concatenate(blocks, axis=1)


def _summarize(q, k, v, sees):
    """One block of attention: (peak of the scores, sum of exp(score - peak), values
    mixed by these weights), for q [B, K, T, E], k [B, K, E, S] and v [B, K, S, E]."""
    scores = jnp.einsum("BKTE,BKES->BKTS", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(sees, scores, _HIDDEN)
    peak = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - peak)
    mixed = jnp.einsum(
        "BKTS,BKSE->BKTE", weights.astype(v.dtype), v,
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    return peak, weights.sum(-1, keepdims=True), mixed


def _attend_bins(q_BZWHE, k_BZWKE, v_BZWKE, tokens, *, prompt) -> jax.Array:
    """Attention of each bin to itself and to (keys, values, tokens) of a prompt.

    The blocks of a long bin read the same keys in a loop: separate programs would keep
    the scores of all blocks in memory.
    """
    width = q_BZWHE.shape[2]
    span = _BLOCK * -(-width // (_BLOCK * _SPANS))
    run = jax.checkpoint(_block) if width > _BLOCK else _block
    spans = []
    for start in range(0, width, span):
        end = min(start + span, width)
        own = jax.tree.map(lambda x, end=end: x[:, :, :end], (k_BZWKE, v_BZWKE, tokens))
        rows = jax.tree.map(lambda x, start=start: x[:, :, start:], own[2])
        spans += _in_turn(run, (q_BZWHE[:, :, start:end], rows), own, prompt)
    return jnp.concatenate(spans, axis=2) if len(spans) > 1 else spans[0]


def _in_turn(run, queries, own, prompt) -> list[jax.Array]:
    """`run` on (queries, their tokens), one block at a time; a list of results."""
    width = queries[0].shape[2]
    if width <= _BLOCK:
        return [run(*queries, own, prompt)]
    count = width // _BLOCK

    def blocks(x):
        whole = x[:, :, : count * _BLOCK]
        parts = whole.reshape(*x.shape[:2], count, _BLOCK, *x.shape[3:])
        return jnp.moveaxis(parts, 2, 0)

    mixed = jax.lax.map(
        lambda block: run(*block, own, prompt), jax.tree.map(blocks, queries)
    )
    mixed = jnp.moveaxis(mixed, 0, 2)
    mixed = [mixed.reshape(*mixed.shape[:2], -1, *mixed.shape[4:])]
    if width > count * _BLOCK:
        rest = jax.tree.map(lambda x: x[:, :, count * _BLOCK :], queries)
        mixed.append(run(*rest, own, prompt))
    return mixed


def _block(q_BZTHE, queries, own, prompt) -> jax.Array:
    """One softmax over a bin's `own` keys and those of the prompt, which the Z bins
    share.

    The queries of a key-value head are adjacent and scores stay in the layout of their
    product, [.., queries, keys]: a transpose costs CPUs more than the products. The
    mixed values are divided by the sum of weights, for they are fewer than the weights.
    """
    size, groups = q_BZTHE.shape[4], own[0].shape[3]
    q = (q_BZTHE * size**-0.5).reshape(*q_BZTHE.shape[:3], groups, -1, size)
    q = jnp.einsum("BZTKQE->BZKQTE", q)
    k, v, tokens = own if prompt is None else jax.tree.map(_behind, prompt, own)
    k, v = jnp.einsum("BZSKE->BZKES", k), jnp.einsum("BZSKE->BZKSE", v)
    rows = q.reshape(*q.shape[:3], -1, size)
    scores = jnp.matmul(rows, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(*q.shape[:-1], -1)
    scores = jnp.where(sees(queries, tokens)[:, :, None, None], scores, _HIDDEN)
    peak = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - peak).reshape(*rows.shape[:-1], -1)
    mixed = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    mixed = (mixed / weights.sum(-1, keepdims=True)).astype(v.dtype)
    return jnp.einsum("BZKQTE->BZTKQE", mixed.reshape(q.shape)).reshape(q_BZTHE.shape)


def _behind(prompt_BX, own_BZS) -> jax.Array:
    """Each bin of `own_BZS` with the prompt before it, [B, Z, X + S, ...]."""
    shape = (*own_BZS.shape[:2], *prompt_BX.shape[1:])
    return jnp.concatenate([jnp.broadcast_to(prompt_BX[:, None], shape), own_BZS], 2)

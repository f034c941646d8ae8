"""Which token sees which, and attention that computes little else.

Axes: B rows of the batch, T tokens, H query heads in K groups of G, one key-value head
a group, E size of a head. For attention a row is a prompt of P slots and behind it R
stretches of W slots; S counts keys.
"""

import flax.struct
import jax
import jax.numpy as jnp

_BLOCK = 256  # queries whose scores are alive at once
_HIDDEN = -1e30  # a score that no softmax sees, and finite: padding may see nothing


class Layout(flax.struct.PyTreeNode):
    """Which tokens of a row see which, where that is more than plain causality.

    A token sees the first `prefix` tokens of its row, and those of its own segment up
    to itself: several continuations can hang on one text without seeing each other.
    With `stretch` set, the first `prompt` slots are followed by stretches of as many
    slots; no segment leaves its stretch and no prefix the prompt, so that attention
    costs a stretch its own square, not the row's.
    """

    positions_BT: jax.Array  # int32: for the rotary embedding
    segments_BT: jax.Array  # int32
    prefix_BT: jax.Array  # int32
    prompt: int = flax.struct.field(pytree_node=False, default=0)
    stretch: int | None = flax.struct.field(pytree_node=False, default=None)

    def mask_BTS(self) -> jax.Array:
        """True where token t sees token s."""
        slots = jnp.broadcast_to(
            jnp.arange(self.segments_BT.shape[1]), self.segments_BT.shape
        )
        tokens = (slots, self.segments_BT, self.prefix_BT)
        return sees(tokens, tokens)


def causal(batch: int, length: int) -> Layout:
    """The layout of plain causality."""
    zeros = jnp.zeros((batch, length), jnp.int32)
    return Layout(zeros + jnp.arange(length)[None], zeros, zeros)


def sees(queries, keys) -> jax.Array:
    """True where a query sees a key; each is (slots, segments, prefixes)."""
    slot_T, segment_T, prefix_T = (x[..., :, None] for x in queries)
    slot_S, segment_S, _ = (x[..., None, :] for x in keys)
    return (slot_S < prefix_T) | ((segment_S == segment_T) & (slot_S <= slot_T))


def attend(q_BTHE, k_BTKE, v_BTKE, layout: Layout) -> jax.Array:
    """Grouped-query attention under `layout`; [B, T, H*E].

    Scores are computed for one block of queries at a time, against the prompt and the
    part of their own stretch that is not after them.
    """
    batch, length, heads, size = q_BTHE.shape
    slots_BT = jnp.broadcast_to(jnp.arange(length), (batch, length))
    tokens = (slots_BT, layout.segments_BT, layout.prefix_BT)
    everything = (q_BTHE, k_BTKE, v_BTKE, tokens)
    prompt, width = layout.prompt, layout.stretch or length
    rest = jax.tree.map(
        lambda x: x[:, prompt:].reshape(batch, -1, width, *x.shape[2:]), everything
    )
    if not prompt:
        return _stretches(*rest, prompt=None).reshape(batch, length, heads * size)
    first = jax.tree.map(lambda x: x[:, None, :prompt], everything)
    _, *keys = jax.tree.map(lambda x: x[:, :prompt], everything)
    mixed = (_stretches(*first, prompt=None), _stretches(*rest, prompt=keys))
    mixed = [x.reshape(batch, -1, heads * size) for x in mixed]
    return jnp.concatenate(mixed, axis=1)


def attend_cached(q_PGHE, prompt, own, lengths_P, count) -> jax.Array:
    """Attention of one new token in each of G rows that share a prompt; [P, G, H*E].

    `prompt` holds keys and values [P, S, K, E], of which a row sees `lengths_P`; `own`
    [P, G, O, K, E], of which it sees `count` and its new token behind them.
    """
    prompts, rows, heads, size = q_PGHE.shape
    length, slots = prompt[0].shape[1], own[0].shape[2]

    def tokens(shape, slots, segment):
        slots = jnp.broadcast_to(slots, shape)
        return slots, jnp.full(shape, segment), jnp.zeros(shape, jnp.int32)

    queries = (
        jnp.full((prompts, rows, 1), length + count),
        jnp.ones((prompts, rows, 1), jnp.int32),
        jnp.broadcast_to(lengths_P[:, None, None], (prompts, rows, 1)),
    )
    own_tokens = tokens((prompts, rows, slots), length + jnp.arange(slots), 1)
    prompt_tokens = tokens((prompts, length), jnp.arange(length), 0)
    mixed = _block(
        q_PGHE[:, :, None], queries, (*own, own_tokens), (*prompt, prompt_tokens)
    )
    return mixed.reshape(prompts, rows, heads * size)


def _stretches(q_BRWHE, k_BRWKE, v_BRWKE, tokens, *, prompt) -> jax.Array:
    """Attention of each stretch to itself and to (keys, values, tokens) of a prompt."""
    width = q_BRWHE.shape[2]
    run = jax.checkpoint(_block) if width > _BLOCK else _block
    blocks = []
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        own = jax.tree.map(lambda x, end=end: x[:, :, :end], (k_BRWKE, v_BRWKE, tokens))
        queries = jax.tree.map(lambda x, start=start: x[:, :, start:], own[2])
        blocks.append(run(q_BRWHE[:, :, start:end], queries, own, prompt))
    return jnp.concatenate(blocks, axis=2) if len(blocks) > 1 else blocks[0]


def _block(q_BRTHE, queries, own, prompt) -> jax.Array:
    """One softmax over a stretch's `own` keys and the prompt's, which R share."""
    heads, groups = q_BRTHE.shape[3], own[0].shape[3]
    q = (q_BRTHE * q_BRTHE.shape[4] ** -0.5).reshape(
        *q_BRTHE.shape[:3], groups, heads // groups, -1
    )

    def scores(keys, k, axes):
        logits = jnp.einsum(
            f"BRTKGE,{axes}->BRKGTS", q, k, preferred_element_type=jnp.float32
        )
        return jnp.where(sees(queries, keys)[:, :, None, None], logits, _HIDDEN)

    k, v, tokens = own
    logits = [scores(tokens, k, "BRSKE")]
    if prompt is not None:
        prompt_k, prompt_v, tokens = prompt
        tokens = tuple(x[:, None] for x in tokens)
        logits.append(scores(tokens, prompt_k, "BSKE"))
    probs = jax.nn.softmax(jnp.concatenate(logits, axis=-1)).astype(v.dtype)
    size = v.shape[2]
    mixed = jnp.einsum("BRKGTS,BRSKE->BRTKGE", probs[..., :size], v)
    if prompt is not None:
        mixed += jnp.einsum("BRKGTS,BSKE->BRTKGE", probs[..., size:], prompt_v)
    return mixed.reshape(q_BRTHE.shape)

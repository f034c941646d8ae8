"""Attention by the splash kernel for TPUs, which keeps no score outside of a block.

The kernel takes a mask that is known when it is compiled, to skip blocks, and within
blocks asks a function of (a number of the query, slot of the key). Here the first is
what any row of a layout's shape may see, and the second what this row sees: the number
of a query holds its slot and the first slot of its segment.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    MultiHeadMask,
    SegmentIds,
    splash_attention_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask_info as mask_infos,
)

from ovd_jax.models.attention import Layout
from ovd_jax.shapes import round_up

_LANES = 128  # blocks are multiples of it
_BLOCK = 512  # slots of a block, at most


def attend(
    q_BTHE: jax.Array,
    k_BTKE: jax.Array,
    v_BTKE: jax.Array,
    layout: Layout,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Like `attention.attend`, for a layout with `bin_size` and at most 2**15 slots;
    [B, T, H, E].

    `interpret` runs the kernel on any platform, slowly.
    """
    length, heads, size = q_BTHE.shape[1:]
    block = min(_BLOCK, round_up(length, _LANES))
    padded = round_up(length, block)
    kernel = _kernel(
        padded, heads, layout.prompt, layout.bin_size or length, block, interpret
    )

    def rows(x_BTHE):
        x_BHTE = x_BTHE.swapaxes(1, 2)
        return jnp.pad(x_BHTE, ((0, 0), (0, 0), (0, padded - length), (0, 0)))

    def one(q_HTE, k_KTE, v_KTE, numbers_T, hidden_T):
        run = _with_numbers(kernel, numbers_T)
        ids = SegmentIds(q=jnp.zeros_like(hidden_T), kv=hidden_T)
        return cast(jax.Array, run(q_HTE, k_KTE, v_KTE, ids))  # without residuals

    mixed_BHTE = jax.vmap(one)(
        rows(q_BTHE * size**-0.5), rows(k_BTKE), rows(v_BTKE),
        *_row_masks(layout, padded),
    )  # fmt: skip
    return mixed_BHTE.swapaxes(1, 2)[:, :length]


def _row_masks(layout, padded: int):
    """For every slot the number that `_sees` reads, and 1 where it is padding of the
    prompt."""
    segments_BT, length = layout.segments_BT, layout.segments_BT.shape[1]
    slots = jnp.arange(length)[None]
    begins_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
    own_BT = jnp.where(begins_BT, slots, 0)
    floor = _first_slots(np.arange(padded), layout.prompt, layout.bin_size or length)
    first_BT = jnp.maximum(jax.lax.cummax(own_BT, axis=1), floor[None, :length])
    more = ((0, 0), (0, padded - length))
    first_BT = jnp.pad(first_BT, more, mode="edge")
    numbers_BT = _number(jnp.arange(padded)[None], first_BT)
    lengths_B1 = layout.prefix_BT.max(axis=1, keepdims=True, initial=0)
    hidden_BT = (slots >= lengths_B1) & (slots < layout.prompt)
    return numbers_BT, jnp.pad(hidden_BT.astype(jnp.int32), more)


def _first_slots(slots, prompt: int, bin_size: int) -> np.ndarray:
    """The first slot where a segment at `slots` can begin."""
    behind = slots - prompt
    return np.where(behind < 0, 0, prompt + behind // bin_size * bin_size)


def _number(slot, first):
    return (slot << 16) | first


def _sees(numbers, keys, *, prompt: int):
    """Whether queries of these numbers see keys in these slots."""
    slots, first = numbers >> 16, numbers & 0xFFFF
    return ((keys >= first) & (keys <= slots)) | ((keys < prompt) & (slots >= prompt))


class _Mask(masks._ComputableMask):
    """What some row of a shape sees."""

    def __init__(self, length: int, prompt: int, bin_size: int):
        super().__init__((length, length), functools.partial(_sees, prompt=prompt))
        slots = np.arange(length, dtype=np.int32)
        first = _first_slots(slots, prompt, bin_size)
        self.q_sequence = _number(slots, first).astype(np.int32)
        self._key = (length, prompt, bin_size)

    def __eq__(self, other):
        return isinstance(other, _Mask) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


@functools.lru_cache(maxsize=64)
def _kernel(length, heads, prompt, bin_size, block, interpret):
    """The kernel for rows of a shape, its arrays NumPy's."""
    mask = _Mask(length, prompt, bin_size)
    every_head = MultiHeadMask([mask] * heads)
    info, _ = mask_infos.process_mask(every_head, (block, block))
    transposed, _ = mask_infos.process_mask_dkv(every_head, (block, block))
    return splash_attention_kernel.SplashAttentionKernel(
        info, info, transposed,
        block_sizes=BlockSizes(*[block] * 8), is_mqa=False, save_residuals=False,
        mask_value=splash_attention_kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None, residual_checkpoint_name=None,
        mask_function=mask.mask_function, interpret=interpret,
    )  # fmt: skip


def _with_numbers(kernel, numbers_T):
    """`kernel` for a row whose queries have these numbers."""
    infos = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
    infos = (
        info._replace(
            data_next=jnp.asarray(info.data_next),
            block_mask=jnp.asarray(info.block_mask), q_sequence=numbers_T,
        )
        for info in infos
    )  # fmt: skip
    return splash_attention_kernel.SplashAttentionKernel(*infos, **kernel.kwargs)

"""Attention in blocks against one softmax over the whole of a row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.models import attention, splash
from ovd_jax.models.attention import Layout, attend, attend_cached, causal

HEADS, GROUPS, SIZE = 4, 2, 6


def dense(q_BTHE, k_BTKE, v_BTKE, layout):
    mixed = jax.nn.dot_product_attention(
        q_BTHE, k_BTKE, v_BTKE, mask=layout.mask_BTS()[:, None], implementation="xla"
    )
    return mixed.reshape(*mixed.shape[:2], -1)


def arrays(batch, length):
    rng = np.random.default_rng(0)
    shapes = [(batch, length, heads, SIZE) for heads in (HEADS, GROUPS, GROUPS)]
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def shared_prompt(segments, lengths, bin_size) -> Layout:
    """Two packs of a prompt in 5 slots, of which `lengths` hold one."""
    prompt = np.zeros((2, 5), np.int32)
    segments = np.concatenate([prompt, segments], 1).astype(np.int32)
    prefix = np.where(segments == 0, 0, np.array(lengths)[:, None]).astype(np.int32)
    zeros = np.zeros_like(segments)
    return Layout(zeros, segments, prefix, prompt=5, bin_size=bin_size)


LAYOUTS = {
    "causal": causal(2, 19),
    "branches": Layout(
        np.zeros((2, 6), np.int32),
        np.array([[1, 1, 1, 2, 2, 3], [1, 1, 2, 2, 3, 3]], np.int32),
        np.array([[0, 0, 0, 2, 2, 3], [0, 0, 1, 1, 2, 2]], np.int32),
    ),
    "one bin": shared_prompt([[1, 1, 2, 2], [1, 2, 2, -1]], (5, 2), 4),
    "three bins": shared_prompt(
        [[1, 1, 2, 3, 3, 3, 4, -1, -1], [1, 1, 1, 2, 2, -1, 3, 4, 5]], (1, 4), 3
    ),
    "two long bins": shared_prompt(
        [[1] * 15 + [2] * 4 + [3] * 9 + [-1] * 10, [1] * 19 + [2] * 19], (5, 2), 19
    ),
}


def outputs_and_gradients(function, layout):
    """Of what is not padding, which may say anything."""
    segments_BT = np.asarray(layout.segments_BT)
    slots = np.arange(segments_BT.shape[1])[None]
    lengths_B1 = np.asarray(layout.prefix_BT).max(axis=1, keepdims=True)
    padding_BT = (slots < layout.prompt) & (slots >= lengths_B1)
    seen = ((segments_BT >= 0) & ~padding_BT)[..., None]
    weights = np.random.default_rng(1).standard_normal((1, 1, HEADS * SIZE)) * seen

    def loss(*inputs):
        mixed = function(*inputs, layout).reshape(weights.shape) * weights
        return mixed.sum(), mixed

    inputs = arrays(*segments_BT.shape)
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*inputs)


def assert_close(actual, expected):
    assert_allclose = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(assert_allclose, actual, expected)


# Blocks of 2 are so many in a row of 19 that some lie in loops, and some do not.
@pytest.mark.slow
@pytest.mark.parametrize("block", [2, 3, 256])
@pytest.mark.parametrize("name", LAYOUTS)
def test_blocks_equal_one_softmax_and_so_do_their_gradients(name, block, monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK", block)
    layout = LAYOUTS[name]
    assert_close(*(outputs_and_gradients(f, layout) for f in (attend, dense)))


def long_rows() -> Layout:
    """Packs that the kernel cuts into three blocks, not at the ends of bins: of
    three bins with one, two and no completions, and padding at their ends."""
    prompt, bin_size, lengths = 60, 90, np.array([60, 1])
    ids = np.array([[90, 0, 50, 30, 0, 0], [7, 3, 90, 0, 1, 88]])  # tokens of each
    segments = np.full((2, 3 * bin_size), -1)
    for row, sizes in enumerate(ids):
        for index, size in enumerate(sizes):
            start = index // 2 * bin_size + (index % 2) * sizes[index - 1]
            segments[row, start : start + size] = index + 1
    segments = np.concatenate([np.zeros((2, prompt)), segments], 1).astype(np.int32)
    prefix = np.where(segments == 0, 0, lengths[:, None]).astype(np.int32)
    return Layout(segments, segments, prefix, prompt=prompt, bin_size=bin_size)


KERNEL_LAYOUTS = {
    **{name: layout for name, layout in LAYOUTS.items() if layout.bin_size},
    "three blocks": long_rows(),
    "causal blocks": causal(1, 300),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNEL_LAYOUTS)
def test_the_kernel_for_tpus_equals_blocks_and_so_do_its_gradients(name, monkeypatch):
    monkeypatch.setattr(splash, "_BLOCK", 128)
    layout = KERNEL_LAYOUTS[name]
    kernel = functools.partial(splash.attend, interpret=True)
    assert_close(*(outputs_and_gradients(f, layout) for f in (kernel, attend)))


def test_a_bin_costs_its_own_square():
    """No array has the scores of a whole row."""
    layout = shared_prompt(np.repeat(np.arange(1, 9), 4)[None].repeat(2, 0), (5, 5), 4)
    length = layout.segments_BT.shape[1]
    jaxpr = jax.make_jaxpr(lambda *x: attend(*x, layout))(*arrays(2, length))
    largest = max(v.aval.size for e in jaxpr.eqns for v in e.outvars)
    assert largest < 2 * HEADS * length**2 / 2


def test_a_long_bin_is_no_longer_a_program():
    """Else the scores of all blocks would be in memory at once."""

    def operations(blocks):
        length = blocks * attention._BLOCK
        shapes = jax.eval_shape(lambda: arrays(1, length))
        layout = causal(1, length)
        return str(jax.make_jaxpr(lambda *x: attend(*x, layout))(*shapes)).count("=")

    assert operations(64) == operations(16)


def test_a_new_token_sees_its_prompt_and_its_own_row_and_nothing_unused():
    """Two prompts of 3 and 5 tokens, three rows each, 2 of 4 slots in use before it."""
    lengths, used, rows = (3, 5), 2, 3
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    q_PGHE = draw(2, rows, HEADS, SIZE)
    prompt = [draw(2, 5, GROUPS, SIZE) for _ in range(2)]
    own = [draw(2, rows, 4, GROUPS, SIZE) for _ in range(2)]
    attend_now = jax.jit(attend_cached)
    lengths_P = jnp.array(lengths)

    def laid_out(prompt, own):
        """As they are cached: keys with their slots last."""
        (k, v), (own_k, own_v) = prompt, own
        return (
            (k.transpose(0, 2, 3, 1), v.swapaxes(1, 2)),
            (
                own_k.transpose(0, 1, 3, 4, 2).reshape(-1, GROUPS, SIZE, 4),
                own_v.swapaxes(2, 3).reshape(-1, GROUPS, 4, SIZE),
            ),
        )

    actual = attend_now(q_PGHE, *laid_out(prompt, own), lengths_P, used)
    for p, length in enumerate(lengths):
        for g in range(rows):
            k, v = (
                jnp.concatenate([x[p, :length], y[p, g, : used + 1]])[None]
                for x, y in zip(prompt, own, strict=True)
            )
            expected = jax.nn.dot_product_attention(q_PGHE[p, g][None, None], k, v)
            np.testing.assert_allclose(actual[p, g], expected.ravel(), atol=1e-5)
    dirty_prompt = [x.at[0, 3:].set(1e3) for x in prompt]
    dirty_own = [x.at[:, :, used + 1 :].set(-1e3) for x in own]
    dirty = attend_now(q_PGHE, *laid_out(dirty_prompt, dirty_own), lengths_P, used)
    np.testing.assert_allclose(dirty, actual, atol=1e-5)

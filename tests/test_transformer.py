"""The transformer's invariants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.models.transformer import (
    REMAT,
    RopeScaling,
    Transformer,
    empty_cache,
    rope_frequencies,
)

TOKENS_BT = np.random.default_rng(1).integers(0, 26, (3, 9)).astype(np.int32)
SCALING = RopeScaling(8.0, 1.0, 4.0, original_max_positions=16)
VALID_BT = np.ones(TOKENS_BT.shape, bool)
forward = jax.jit(Transformer.__call__)
hidden = jax.jit(Transformer.hidden)
extend = jax.jit(Transformer.extend)


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


def test_a_later_token_changes_nothing_before_it(model):
    changed_BT = TOKENS_BT.copy()
    changed_BT[:, 5] = (changed_BT[:, 5] + 1) % 26
    before, after = forward(model, TOKENS_BT), forward(model, changed_BT)
    assert_close(after[:, :5], before[:, :5])
    assert np.all(np.abs(after[:, 5:] - before[:, 5:]).max(-1) > 1e-3)


def test_right_padding_changes_nothing_before_it(model):
    padded_BT = np.pad(TOKENS_BT, ((0, 0), (0, 4)), constant_values=7)
    assert_close(forward(model, padded_BT)[:, :9], forward(model, TOKENS_BT))


def test_rows_do_not_see_each_other(model):
    alone = forward(model, np.repeat(TOKENS_BT[1:2], 3, axis=0))[1]
    assert_close(forward(model, TOKENS_BT)[1], alone)


def test_the_cache_gives_what_a_full_forward_gives(model):
    expected_BTD = hidden(model, TOKENS_BT)
    cache = empty_cache(model.config, 3, 12, model.dtype)
    for start, end in ((0, 3), (3, 6), (6, 9)):
        hidden_BTD, cache = extend(
            model, TOKENS_BT[:, start:end], VALID_BT[:, start:end], cache
        )
        assert_close(hidden_BTD, expected_BTD[:, start:end])
    assert int(cache.length) == 9
    np.testing.assert_array_equal(cache.valid_BS[0], np.arange(12) < 9)


def test_left_padding_shifts_no_position(model):
    """One row is padded by 3, another by 1, and padding holds arbitrary tokens."""
    pads = (3, 0, 1)
    tokens_BT = np.full((3, 12), 11, np.int32)
    valid_BT = np.zeros((3, 12), bool)
    for row, pad in enumerate(pads):
        tokens_BT[row, pad : pad + 9] = TOKENS_BT[row]
        valid_BT[row, pad : pad + 9] = True
    cache = empty_cache(model.config, 3, 12, model.dtype)
    hidden_BTD, _ = extend(model, tokens_BT, valid_BT, cache)
    expected_BTD = hidden(model, TOKENS_BT)
    for row, pad in enumerate(pads):
        assert_close(hidden_BTD[row, pad : pad + 9], expected_BTD[row])


def test_what_an_unused_slot_holds_does_not_matter(model):
    cache = empty_cache(model.config, 3, 12, model.dtype)
    dirty = cache.replace(
        keys_NBSKE=cache.keys_NBSKE + 50.0, values_NBSKE=cache.values_NBSKE - 1e3
    )
    clean_BTD, _ = extend(model, TOKENS_BT, VALID_BT, cache)
    dirty_BTD, _ = extend(model, TOKENS_BT, VALID_BT, dirty)
    assert_close(dirty_BTD, clean_BTD)


def test_an_invalid_slot_in_the_middle_is_never_attended(model):
    """A finished row of the sampler goes on writing such slots."""
    cache = empty_cache(model.config, 3, 12, model.dtype)
    for start, end, valid in ((0, 3, True), (3, 6, False), (3, 6, True), (6, 9, True)):
        tokens_BT, valid_BT = TOKENS_BT[:, start:end], np.full((3, 3), valid)
        hidden_BTD, cache = extend(model, tokens_BT, valid_BT, cache)
    assert_close(hidden_BTD, hidden(model, TOKENS_BT)[:, 6:])


@pytest.mark.parametrize(
    "change", [{"rope_theta": 500_000.0}, {"rope_scaling": SCALING}]
)
def test_rotary_settings_change_the_logits(change, config, model, make_model):
    changed = make_model(dataclasses.replace(config, **change))
    difference_BTV = forward(changed, TOKENS_BT) - forward(model, TOKENS_BT)
    assert np.abs(difference_BTV[:, 0]).max() < 1e-5  # position 0 is not rotated
    assert np.abs(difference_BTV[:, -1]).max() > 1e-3


def test_llama3_scaling_has_its_three_ranges(config):
    """theta 1e4, 4 pairs: 1, 1e-1, 1e-2, 1e-3 radians; 4 turns in 251 positions at
    1e-1, so pair 0 is kept, pair 1 mixed, and the slow two divided by 8."""
    wide = dataclasses.replace(config, head_dim=8)
    plain = rope_frequencies(wide)
    assert_close(plain, [1.0, 1e-1, 1e-2, 1e-3])
    scaling = RopeScaling(8.0, 1.0, 4.0, original_max_positions=round(40 * np.pi))
    scaled = rope_frequencies(dataclasses.replace(wide, rope_scaling=scaling))
    keep = (scaling.original_max_positions * 0.1 / (2 * np.pi) - 1) / 3  # about 1/3
    assert_close(
        scaled / plain, [1.0, keep + (1 - keep) / 8, 1 / 8, 1 / 8], tolerance=1e-6
    )


def test_logits_are_float32_when_computing_in_bfloat16(config, model, make_model):
    half = make_model(config, dtype=jnp.bfloat16)
    assert hidden(half, TOKENS_BT).dtype == jnp.bfloat16
    logits_BTV = forward(half, TOKENS_BT)
    assert logits_BTV.dtype == jnp.float32
    assert 1e-4 < np.abs(logits_BTV - forward(model, TOKENS_BT)).mean() < 0.1
    # Rounded to bfloat16 they would equal their own rounding.
    assert np.any(logits_BTV.astype(jnp.bfloat16).astype(jnp.float32) != logits_BTV)


@pytest.mark.parametrize("remat", REMAT)
def test_layers_are_recomputed_only_on_request_and_gradients_stay(remat, model):
    def loss(model, remat):
        return jnp.sum(model.hidden(TOKENS_BT, remat=remat) ** 2)

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    assert ("remat" in str(grad.trace(model, remat).jaxpr)) == (remat != "none")
    jax.tree.map(assert_close, grad(model, remat), grad(model, "none"))

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
    rope_frequencies,
)

TOKENS_BT = np.random.default_rng(1).integers(0, 26, (3, 9)).astype(np.int32)
SCALING = RopeScaling(8.0, 1.0, 4.0, original_max_positions=16)
forward = jax.jit(Transformer.__call__)
hidden = jax.jit(Transformer.hidden)


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


def test_reading_keeps_the_rotated_keys_and_the_values_of_every_layer(model):
    """Prompts of which one begins like the other have the same ones to begin with."""
    hidden_BTD, keys, values = jax.jit(Transformer.read)(model, TOKENS_BT)
    assert_close(hidden_BTD, hidden(model, TOKENS_BT))
    assert keys.shape == values.shape == (2, *TOKENS_BT.shape, 2, 6)
    _, *short = jax.jit(Transformer.read)(model, TOKENS_BT[:, :4])
    for some, whole in zip(short, (keys, values), strict=True):
        assert_close(some, whole[:, :, :4])
        assert np.std(whole) > 0.1


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

"""Log-probabilities and losses in chunks against a dense softmax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.learning.logprobs import token_logprobs, token_loss

CHUNKS = [(1, 1.0), (5, 0.7), (8, 1.0), (24, 1.5), (1000, 1.0)]
RNG = np.random.default_rng(2)
HIDDEN_MD = jnp.asarray(RNG.standard_normal((24, 6)), jnp.float32)
HEAD_VD = jnp.asarray(RNG.standard_normal((11, 6)), jnp.float32)
TARGETS_M = jnp.asarray(RNG.integers(0, 11, 24))
INPUTS = {
    "weights": jnp.asarray(RNG.standard_normal(24), jnp.float32),
    "bonus": jnp.asarray(RNG.standard_normal(24), jnp.float32),
    "trained": jnp.asarray(RNG.random(24) < 0.7),
}


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-5)


def dense(hidden_MD, head_VD, temperature):
    """Log-probabilities of the targets, and entropies."""
    all_MV = jax.nn.log_softmax(hidden_MD @ head_VD.T / temperature)
    picked_M1 = jnp.take_along_axis(all_MV, TARGETS_M[:, None], axis=-1)
    return picked_M1[:, 0], -jnp.sum(jnp.exp(all_MV) * all_MV, axis=-1)


def loss_of(logprobs, entropies, inputs):
    """Anything that bends: of both numbers, masked, with two sums beside it."""
    losses = inputs["weights"] * jnp.exp(0.3 * logprobs) + inputs["bonus"] * entropies
    total = jnp.sum(losses, where=inputs["trained"])
    return total, {"tokens": inputs["trained"].sum(), "squares": (logprobs**2).sum()}


@pytest.mark.parametrize(("chunk", "temperature"), CHUNKS)
def test_chunked_logprobs_equal_a_dense_log_softmax(chunk, temperature):
    chunked = jax.jit(
        functools.partial(token_logprobs, temperature=temperature, chunk=chunk)
    )
    actual = chunked(HIDDEN_MD, HEAD_VD, TARGETS_M)
    jax.tree.map(assert_close, actual, dense(HIDDEN_MD, HEAD_VD, temperature))


@pytest.mark.parametrize(("chunk", "temperature"), CHUNKS)
def test_a_chunked_loss_and_its_gradient_equal_the_dense_ones(chunk, temperature):
    def chunked(hidden_MD, head_VD):
        args = (hidden_MD, head_VD, TARGETS_M, INPUTS, temperature, chunk)
        loss, sums = token_loss(loss_of, *args)
        return 3 * loss, (loss, sums["tokens"])

    def whole(hidden_MD, head_VD):
        loss, sums = loss_of(*dense(hidden_MD, head_VD, temperature), INPUTS)
        return 3 * loss, (loss, sums["tokens"])

    actual, expected = (
        jax.jit(jax.grad(function, argnums=(0, 1), has_aux=True))(HIDDEN_MD, HEAD_VD)
        for function in (chunked, whole)
    )
    jax.tree.map(assert_close, actual, expected)
    assert all(np.abs(grad).max() > 0.1 for grad in actual[0])


def test_padding_that_is_not_a_number_reaches_no_gradient():
    """Rows beyond the last chunk are padding, and masked rows may hold anything."""
    wild = INPUTS | {"weights": jnp.where(INPUTS["trained"], INPUTS["weights"], 1e30)}

    def grads(inputs):
        args = (TARGETS_M, inputs, 1.0, 10)
        return jax.jit(
            jax.grad(lambda h, w: token_loss(loss_of, h, w, *args)[0], argnums=(0, 1))
        )(HIDDEN_MD, HEAD_VD)

    jax.tree.map(assert_close, grads(wild), grads(INPUTS))


def test_bfloat16_gives_gradients_in_bfloat16_from_sums_in_float32():
    half = (HIDDEN_MD.astype(jnp.bfloat16), HEAD_VD.astype(jnp.bfloat16))
    (loss, _), grads = jax.value_and_grad(
        lambda h, w: token_loss(loss_of, h, w, TARGETS_M, INPUTS, 1.0, 8),
        argnums=(0, 1), has_aux=True,
    )(*half)  # fmt: skip
    assert loss.dtype == jnp.float32
    assert [grad.dtype for grad in grads] == [jnp.bfloat16] * 2

"""An array that would broadcast into a wrong loss is refused while it is traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import make_batch

from ovd_jax.learning.batch import TopK
from ovd_jax.learning.distill import (
    chunked_divergence,
    dense_divergence,
    reverse_kl_policy_loss,
    top_k_divergence,
)
from ovd_jax.learning.divergences import forward_kl
from ovd_jax.learning.logprobs import token_loss
from ovd_jax.learning.losses import dpo_loss, imitation_loss, policy_loss

SHAPE = (2, 5)  # as loss_cases.MASK_KC
OTHERS = [(1, 5), (2, 1), (5,), ()]
OPTIONS = dict(clip_low=0.2, clip_high=0.4, kl_coef=0.1, importance_cap=2.0)
LOSSES = {
    "policy": functools.partial(policy_loss, **OPTIONS),
    "imitation": imitation_loss,
    "preference": functools.partial(dpo_loss, beta=0.1),
    "reverse KL": functools.partial(reverse_kl_policy_loss, **OPTIONS),
}
FIELDS = (
    "weights_BY", "teacher_BY", "advantages_BY", "sampler_logprobs_BY",
    "behavior_logprobs_BY", "ref_logprobs_BY", "teacher_logprobs_BY",
)  # fmt: skip


def floats(*shape) -> np.ndarray:
    return np.ones(shape, np.float32)


def trace(loss, *, logprobs=SHAPE, entropies=SHAPE, **fields):
    """Traces a loss whose arrays have the shapes of `SHAPE` and `fields`."""
    shapes = dict(teacher_logprobs_BY=SHAPE) | fields
    arrays = {name: floats(*shape) for name, shape in shapes.items()}
    batch = make_batch().replace(**arrays)
    return jax.eval_shape(LOSSES[loss], floats(*logprobs), floats(*entropies), batch)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_of_arrays_of_one_shape_is_a_number(loss):
    assert trace(loss)[0].shape == ()


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["logprobs", "entropies", *FIELDS])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_refuses_an_array_of_another_shape(loss, name, other):
    with pytest.raises(AssertionError, match="different shapes"):
        trace(loss, **{name: other})


def test_a_preference_is_between_the_trajectories_of_a_row():
    flat = dict.fromkeys(("logprobs", "entropies", *FIELDS), (5,))
    assert trace("imitation", **flat)[0].shape == ()
    with pytest.raises(AssertionError, match="rank"):
        trace("preference", **flat)


def divergence(compare, **shapes):
    """Traces a divergence of 6 positions between models of 7 tokens."""
    shapes = dict(
        hidden=(6, 3), head=(7, 3), teacher_hidden=(6, 4), teacher_head=(7, 4),
        weights=(6,),
    ) | shapes  # fmt: skip
    arrays = [floats(*shape) for shape in shapes.values()]
    run = functools.partial(compare, forward_kl, temperature=1.0)
    return jax.eval_shape(run, *arrays)


@pytest.mark.parametrize(
    "other",
    [dict(teacher_hidden=(1, 4)), dict(teacher_head=(1, 4)), dict(weights=(1,))],
)
@pytest.mark.parametrize("compare", [
    dense_divergence, functools.partial(chunked_divergence, chunk=100),
])  # fmt: skip
def test_a_divergence_refuses_fewer_positions_or_tokens(compare, other):
    assert divergence(compare)[0].shape == ()
    with pytest.raises(AssertionError, match="different shape"):
        divergence(compare, **other)


@pytest.mark.parametrize(("positions", "tokens"), [(1, 3), (6, 1)])
def test_the_likeliest_tokens_of_both_models_are_as_many(positions, tokens):
    def run(other):
        top = TopK(ids=jnp.zeros(other.shape, jnp.int32), logprobs=-other)
        student = -2 * floats(6, 3)
        return top_k_divergence(forward_kl, student, floats(6), top, floats(6))

    assert jax.eval_shape(run, floats(6, 3))[0].shape == ()
    with pytest.raises(AssertionError, match="different shapes"):
        jax.eval_shape(run, floats(positions, tokens))


def test_the_loss_of_tokens_refuses_fewer_inputs_than_positions():
    def run(weights):
        return token_loss(
            lambda logprobs, _, weights: (jnp.sum(logprobs * weights), {}),
            floats(6, 3), floats(7, 3), jnp.zeros(6, jnp.int32), weights, 1.0, 100,
        )  # fmt: skip

    assert jax.eval_shape(run, floats(6))[0].shape == ()
    with pytest.raises(AssertionError, match="different shape"):
        jax.eval_shape(run, floats(1))

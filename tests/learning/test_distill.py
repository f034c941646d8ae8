"""Divergences: numbers worked by hand, and every form against plain autodiff."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.learning.batch import TopK
from ovd_jax.learning.distill import (
    chunked_divergence,
    dense_divergence,
    top_k,
    top_k_divergence,
    with_rest,
)
from ovd_jax.learning.divergences import forward_kl, jsd, make_divergence, reverse_kl
from ovd_jax.learning.logprobs import token_logprobs

RNG = np.random.default_rng(4)
HIDDEN_MD, TEACHER_ME = (
    jnp.asarray(RNG.standard_normal((24, size)), jnp.float32) for size in (6, 9)
)
HEAD_VD, TEACHER_VE = (
    jnp.asarray(RNG.standard_normal((11, size)), jnp.float32) for size in (6, 9)
)
WEIGHTS_M = jnp.asarray(RNG.random(24) * (RNG.random(24) < 0.7), jnp.float32) / 24
DIVERGENCES = [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1)]

HALVES = jnp.log(jnp.array([0.5, 0.5]))
QUARTER = jnp.log(jnp.array([0.25, 0.75]))


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


def test_kl_by_hand():
    """Student 1/2, 1/2 and teacher 1/4, 3/4."""
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)  # 0.1308
    assert_close(forward_kl(HALVES, QUARTER).sum(), expected)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # 0.1438
    assert_close(reverse_kl(HALVES, QUARTER).sum(), expected)


def test_jsd_by_hand():
    """The mix is 0.2 of 1/4, 3/4 and 0.8 of 1/2, 1/2: 0.45, 0.55."""
    teacher = 0.25 * math.log(0.25 / 0.45) + 0.75 * math.log(0.75 / 0.55)  # 0.0857
    student = 0.5 * math.log(0.5 / 0.45) + 0.5 * math.log(0.5 / 0.55)  # 0.0050
    expected = 0.2 * teacher + 0.8 * student
    assert_close(jsd(HALVES, QUARTER, beta=0.2).sum(), expected)


@pytest.mark.parametrize(
    ("beta", "limit"), [(1e-4, forward_kl), (1 - 1e-4, reverse_kl)]
)
def test_jsd_is_a_kl_divergence_at_either_end(beta, limit):
    """Divided by beta, which it goes to zero with, or by 1 - beta."""
    scaled = jsd(HALVES, QUARTER, beta=beta).sum() / min(beta, 1 - beta)
    assert_close(scaled, limit(HALVES, QUARTER).sum(), 2e-3)


def test_unknown_divergences_and_betas_are_named():
    with pytest.raises(
        ValueError, match="'tv' is not one of forward_kl, reverse_kl, j"
    ):
        make_divergence("tv", beta=0.5)
    with pytest.raises(ValueError, match=r"distill\.beta 1\.0 is not between 0"):
        make_divergence("jsd", beta=1.0)


def run(compare, terms_of, temperature):
    """((loss, sums), gradients by hidden states and head) of three times a loss."""

    def loss(hidden_MD, head_VD):
        loss, sums = compare(
            terms_of, hidden_MD, head_VD, TEACHER_ME, TEACHER_VE, WEIGHTS_M,
            temperature=temperature,
        )  # fmt: skip
        return 3 * loss, (loss, sums)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(HIDDEN_MD, HEAD_VD)


@pytest.mark.parametrize(("name", "beta"), DIVERGENCES)
@pytest.mark.parametrize(("chunk", "temperature"), [(1, 1.0), (7, 0.7), (1000, 1.5)])
def test_a_chunked_divergence_and_its_gradient_are_the_dense_ones(
    name, beta, chunk, temperature
):
    terms_of = make_divergence(name, beta=beta)
    expected = run(dense_divergence, terms_of, temperature)
    chunked = functools.partial(chunked_divergence, chunk=chunk)
    jax.tree.map(assert_close, run(chunked, terms_of, temperature), expected)
    assert expected[0][1][0] > 0.01


@pytest.mark.parametrize("compare", [
    dense_divergence, functools.partial(chunked_divergence, chunk=5),
])  # fmt: skip
def test_untrained_positions_may_hold_anything(compare):
    is_trained_M1 = (WEIGHTS_M > 0)[:, None]
    wild_MU = jnp.where(is_trained_M1, TEACHER_ME, jnp.nan)

    def loss(hidden_MD, teacher_MU):
        return compare(
            forward_kl, hidden_MD, HEAD_VD, teacher_MU, TEACHER_VE, WEIGHTS_M,
            temperature=1.0,
        )[0]  # fmt: skip

    assert_close(loss(HIDDEN_MD, wild_MU), loss(HIDDEN_MD, TEACHER_ME))
    if compare is not dense_divergence:
        grads = [jax.grad(loss)(HIDDEN_MD, x) for x in (wild_MU, TEACHER_ME)]
        assert_close(*grads)
        assert_close(grads[0][~is_trained_M1[:, 0]], 0)


@pytest.mark.parametrize("chunk", [5, 1000])
def test_top_k_are_the_likeliest_tokens(chunk):
    found = top_k(TEACHER_ME, TEACHER_VE, k=3, temperature=0.7, chunk=chunk)
    all_MV = jax.nn.log_softmax(TEACHER_ME @ TEACHER_VE.T / 0.7)
    expected = jax.lax.top_k(all_MV, 3)
    assert_close(found.logprobs, expected[0])
    np.testing.assert_array_equal(found.ids, expected[1])


def test_the_rest_of_the_vocabulary_is_one_more_token_by_hand():
    """Of four tokens the teacher's likeliest two: 0.5, 0.3, and 0.2 for the rest; the
    student gives them 0.25 each, and 0.5."""
    top = TopK(ids=jnp.array([[2, 0]]), logprobs=jnp.log(jnp.array([[0.5, 0.3]])))
    student_MA = jnp.log(jnp.array([[0.25, 0.25]]))
    assert_close(jnp.exp(with_rest(student_MA)), [[0.25, 0.25, 0.5]])
    loss, sums = top_k_divergence(
        forward_kl, student_MA, jnp.zeros(1), top, jnp.array([2.0])
    )
    expected = 0.5 * math.log(2) + 0.3 * math.log(1.2) + 0.2 * math.log(0.4)  # 0.2180
    assert_close(loss, 2 * expected)
    assert_close(sums["divergence_sum"], expected)


def top_k_loss(hidden_MD, head_VD, k, terms_of):
    top = top_k(TEACHER_ME, TEACHER_VE, k=k, temperature=2.0, chunk=7)
    numbers = token_logprobs(hidden_MD, head_VD, top.ids, 2.0, 7)
    return top_k_divergence(terms_of, *numbers, top, WEIGHTS_M)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "beta"), DIVERGENCES)
def test_top_k_of_all_but_one_token_is_the_whole_vocabulary(name, beta):
    """And of fewer less, by the information that the rest held."""
    terms_of = make_divergence(name, beta=beta)
    expected = run(dense_divergence, terms_of, 2.0)
    grads = jax.grad(
        lambda *args: 3 * top_k_loss(*args, 10, terms_of)[0], argnums=(0, 1)
    )(HIDDEN_MD, HEAD_VD)
    jax.tree.map(functools.partial(assert_close, tolerance=2e-4), grads, expected[1])
    losses = [top_k_loss(HIDDEN_MD, HEAD_VD, k, terms_of)[0] for k in (1, 4, 7, 10)]
    assert_close(losses[-1], expected[0][1][0], 1e-4)
    assert all(np.diff(losses) > 0)

"""Losses in numbers worked by hand: mostly two rows, three trained tokens and two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import (
    AGGREGATIONS,
    MASK_KC,
    SEGMENTS_KC,
    TRAINED_KC,
    assert_close,
    make_batch,
    weigh,
)

from ovd_jax.learning.losses import (
    dpo_loss,
    imitation_loss,
    importance_weights,
    k1,
    k2,
    k3,
    policy_loss,
)

CLIP = dict(clip_low=0.2, clip_high=0.4)


def loss_of(logprobs_BY, batch, **options):
    """The loss at entropies of 0."""
    zeros_BY = jnp.zeros_like(logprobs_BY)
    return policy_loss(logprobs_BY, zeros_BY, batch, **CLIP | options)


def loss_of_ratio(ratio, advantage, *, kl_coef=0.0, ref=0.0):
    """(loss, metrics) of one token of weight 1 whose behavior log-probability is 0."""
    batch = make_batch(
        np.ones((1, 1), np.float32),
        advantages_BY=np.full((1, 1), advantage, np.float32),
        ref_logprobs_BY=np.full((1, 1), ref, np.float32),
    )
    return loss_of(jnp.log(jnp.full((1, 1), ratio)), batch, kl_coef=kl_coef)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.3, 2.0, 2.6, 2.6),  # inside: 1.4 is the upper end
        (1.5, 2.0, 2.8, 0.0),  # a likely good token is not pushed further
        (0.5, 2.0, 1.0, 1.0),  # an unlikely good one is
        (0.7, -2.0, -1.6, 0.0),  # an unlikely bad token is not pushed further
        (1.5, -2.0, -3.0, -3.0),  # a likely bad one is
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clipping_by_hand(ratio, advantage, gain, slope):
    """d(ratio * A) / d(log p) is ratio * A."""
    loss, metrics = loss_of_ratio(ratio, advantage)
    assert_close(loss, -gain)
    assert_close(metrics["ratio_sum"], ratio)
    assert metrics["clipped_sum"] == float(not 0.8 <= ratio <= 1.4)
    grad = jax.grad(lambda x: loss_of_ratio(jnp.exp(x), advantage)[0])(jnp.log(ratio))
    assert_close(grad, -slope)


@pytest.mark.parametrize(
    ("policy", "ref", "expected"),
    [
        (0.5, 0.5, 0.0),
        (0.25, 0.5, 2 - np.log(2) - 1),
        (0.5, 0.25, 0.5 + np.log(2) - 1),
        (1.0, np.exp(-1.0), np.exp(-1.0)),
    ],
)
def test_k3_by_hand(policy, ref, expected):
    assert_close(k3(jnp.log(policy), jnp.log(ref)), expected)


def test_k3_of_a_small_drift_is_no_rounding_noise():
    """About half the square of it; 1 is a million times that."""
    drifts = np.array([1e-2, -1e-3, 1e-4, -1e-5], np.float32)
    np.testing.assert_allclose(k3(0.0, drifts), drifts**2 / 2, rtol=5e-3)


def test_k3_is_unbiased_for_the_kl():
    policy, ref = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    values = k3(jnp.log(policy), jnp.log(ref))
    assert np.all(values > 0)
    assert_close(np.sum(policy * values), np.sum(policy * np.log(policy / ref)))


def test_the_kl_is_added_with_its_coefficient():
    loss, metrics = loss_of_ratio(1.0, 2.0, kl_coef=0.5, ref=np.log(2.0))
    assert_close(metrics["kl"], 1 - np.log(2))
    assert_close(loss, -2.0 + 0.5 * (1 - np.log(2)))


def test_importance_weights_are_capped_and_leave_the_teachers_tokens_alone():
    batch = make_batch(
        np.ones((1, 4), np.float32),
        sampler_logprobs_BY=np.array([[-np.log(5), -np.log(5), 0, 0]], np.float32),
        teacher_BY=np.array([[0, 0, 0, 1]], bool),
    )
    behavior_BY = np.log(np.array([[0.1, 0.9, 0.6, 0.5]], np.float32))
    weights_BY = importance_weights(behavior_BY, batch, cap=2.0)
    assert_close(weights_BY, [[0.5, 2.0, 0.6, 1.0]])


def test_importance_weights_scale_the_surrogate_but_not_the_kl():
    """Weights 0.5 and 2 (capped), 1 for the teacher's token; ratios are 1."""
    batch = make_batch(
        np.ones((1, 3), np.float32),
        advantages_BY=np.array([[1, -1, 3]], np.float32),
        sampler_logprobs_BY=np.log(np.array([[2.0, 0.01, 0.01]], np.float32)),
        teacher_BY=np.array([[0, 0, 1]], bool),
        ref_logprobs_BY=np.full((1, 3), np.log(2.0), np.float32),
    )
    options = dict(kl_coef=1.0, importance_cap=2.0)
    loss, metrics = loss_of(jnp.zeros((1, 3)), batch, **options)
    kl = 3 * (1 - np.log(2))
    assert_close(metrics["kl"], kl)
    assert_close(loss, kl - (0.5 - 2.0 + 3.0))


def noisy_case():
    """A batch of random numbers and the policy's."""
    rng = np.random.default_rng(0)
    names = ("advantages_BY", "behavior_logprobs_BY", "ref_logprobs_BY")
    draws = [rng.normal(size=MASK_KC.shape).astype(np.float32) for _ in range(4)]
    return make_batch(**dict(zip(names, draws[1:], strict=True))), draws[0]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_losses_of_the_rows_add_up_to_the_batchs(aggregation):
    batch, logprobs_BY = noisy_case()
    batch = batch.replace(weights_BY=weigh(MASK_KC, aggregation))
    whole = loss_of(logprobs_BY, batch, kl_coef=0.3)
    parts = []
    for row in (slice(0, 1), slice(1, 2)):
        part = jax.tree.map(lambda x, row=row: x[row], batch)
        parts.append(loss_of(logprobs_BY[row], part, kl_coef=0.3))
    jax.tree.map(assert_close, jax.tree.map(jnp.add, *parts), whole)
    assert whole[1]["tokens"] == 5


@pytest.mark.parametrize("field", ["policy", "behavior_logprobs_BY", "ref_logprobs_BY"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 200.0])
def test_what_an_untrained_position_holds_reaches_neither_loss_nor_gradient(
    field, value
):
    """A log-probability that has drifted by 100 nats overflows `exp`."""
    batch, logprobs_BY = noisy_case()

    def loss_and_grad(batch, logprobs_BY):
        return jax.value_and_grad(lambda x: loss_of(x, batch, kl_coef=0.3)[0])(
            logprobs_BY
        )

    expected = loss_and_grad(batch, logprobs_BY)
    if field == "policy":
        logprobs_BY = np.where(MASK_KC, logprobs_BY, np.float32(value))
    else:
        changed_BY = np.where(MASK_KC, getattr(batch, field), np.float32(value))
        batch = batch.replace(**{field: changed_BY})
    actual = loss_and_grad(batch, logprobs_BY)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    np.testing.assert_array_equal(actual[1][~MASK_KC], 0.0)
    assert np.all(actual[1][MASK_KC] != 0)


def test_without_behavior_the_policy_is_its_own():
    """The ratio is 1 whatever the policy, and its slope that of the log-probability."""
    batch, logprobs_BY = noisy_case()
    own = batch.replace(behavior_logprobs_BY=logprobs_BY)
    grad = jax.value_and_grad(lambda x, batch: loss_of(x, batch, kl_coef=0.3)[0])
    expected = grad(logprobs_BY, own)
    actual = grad(logprobs_BY, batch.replace(behavior_logprobs_BY=None))
    jax.tree.map(assert_close, actual, expected)


def test_the_entropy_bonus_is_taken_off_the_loss():
    batch, logprobs_BY = noisy_case()
    options = dict(kl_coef=0.0, **CLIP)
    plain, _ = policy_loss(logprobs_BY, logprobs_BY**2, batch, **options)
    loss, sums = policy_loss(
        logprobs_BY, logprobs_BY**2, batch, entropy_coef=0.5, **options
    )
    assert_close(loss, plain - 0.5 * np.sum(logprobs_BY[MASK_KC] ** 2))
    assert_close(sums["entropy_sum"], np.sum(logprobs_BY[MASK_KC] ** 2))


def test_the_teachers_tokens_are_imitated_by_hand():
    """Whatever their advantage and ratio; the student's stay with the surrogate."""
    batch = make_batch(
        np.array([[0.5, 0.25, 0.25]], np.float32),
        advantages_BY=np.array([[2.0, 2.0, 0.0]], np.float32),
        behavior_logprobs_BY=np.array([[-1.0, -5.0, -1.0]], np.float32),
        teacher_BY=np.array([[0, 1, 1]], bool),
    )
    logprobs_BY = jnp.array([[-1.0, -2.0, -3.0]])

    def loss(x):
        return loss_of(x, batch, kl_coef=0.0, imitation_coef=0.1)[0]

    # 0.5 * ratio 1 * 2, then 0.1 * (0.25 * -2 + 0.25 * -3)
    assert_close(loss(logprobs_BY), -(1.0 - 0.125))
    assert_close(jax.grad(loss)(logprobs_BY), [[-1.0, -0.025, -0.025]])


def test_the_mismatch_is_over_the_students_own_tokens():
    batch = make_batch(
        behavior_logprobs_BY=np.full((2, 5), -1.0, np.float32),
        sampler_logprobs_BY=np.full((2, 5), -1.5, np.float32),
        teacher_BY=np.array([[1, 1, 0, 0, 0], [0, 0, 0, 1, 0]], bool),
    )
    _, sums = loss_of(jnp.zeros((2, 5)), batch, kl_coef=0.0)
    assert_close([sums["own_tokens"], sums["mismatch_sum"]], [3, 1.5])


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.0, 2.0, 2.0),
        (1.5, 2.0, 2.8),  # clipped at 1.4, and still pushed
        (0.5, -2.0, -1.6),  # at 0.8
        (1.3, -1.0, -1.3),
    ],
)
def test_cispo_by_hand(ratio, advantage, slope):
    """The gradient by log p is the clipped ratio times A; the gain that times log
    ratio."""
    batch = make_batch(
        np.ones((1, 1), np.float32),
        advantages_BY=np.full((1, 1), advantage, np.float32),
    )

    def loss(log_ratio):
        return loss_of(
            jnp.full((1, 1), log_ratio), batch, kl_coef=0.0, surrogate="cispo"
        )

    (value, sums), grad = jax.value_and_grad(loss, has_aux=True)(np.log(ratio))
    assert_close(value, -slope * np.log(ratio))
    assert_close(grad, -slope)
    assert_close(sums["ratio_sum"], ratio)
    assert sums["clipped_sum"] == float(not 0.8 <= ratio <= 1.4)


def test_gspo_by_hand():
    """Ratios of tokens 2 and 1/2 of one trajectory are 1 together; 8 and 1/2 of another
    are 2 together, clipped to 1.4; 0.9 alone is itself. Weights are a mean over
    tokens, then over the three."""
    batch = make_batch(
        weigh(TRAINED_KC, "grpo", SEGMENTS_KC),
        segments_BY=SEGMENTS_KC,
        advantages_BY=np.array([[1, 1, 2, 2, 2], [-1, 0, 0, 0, 0]], np.float32),
    )
    ratios = np.array([[2, 0.5, 8, 7, 0.5], [0.9, 1, 1, 1, 1]], np.float32)

    def loss(log_ratio_BY):
        return loss_of(log_ratio_BY, batch, kl_coef=0.0, surrogate="gspo")

    (value, sums), grad = jax.value_and_grad(loss, has_aux=True)(jnp.log(ratios))
    assert_close(value, -(1.0 * 1 + 1.4 * 2 - 0.9 * 1) / 3)
    assert_close(sums["ratio_sum"], 2 * 1 + 2 * 2 + 0.9)
    assert sums["clipped_sum"] == 2
    expected = [[-1 / 6, -1 / 6, 0, 0, 0], [0.9 / 3, 0, 0, 0, 0]]
    assert_close(grad, expected)


@pytest.mark.parametrize(
    ("estimate", "value", "slope"),
    [
        (k1, np.log(0.5), 1.0),
        (k2, 0.5 * np.log(0.5) ** 2, np.log(0.5)),
        (k3, 1 + np.log(0.5), -1.0),  # 1 - 1 / 0.5
    ],
)
def test_kl_estimators_by_hand(estimate, value, slope):
    """The policy gives 1/4 where the reference gives 1/2."""
    policy, ref = jnp.log(0.25), jnp.log(0.5)
    assert_close(estimate(policy, ref), value)
    assert_close(jax.grad(estimate)(policy, ref), slope)


def test_k1_measures_the_kl_but_only_k2_pushes_along_its_gradient():
    """On a policy of three tokens, by its own probabilities."""
    logits, ref = jnp.array([0.5, 0.1, -0.3]), jnp.log(jnp.array([0.3, 0.3, 0.4]))
    probs = jax.nn.softmax(logits)

    def exact(logits):
        logprobs = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(logprobs) * (logprobs - ref))

    def expected(estimate, logits):
        return jnp.sum(probs * estimate(jax.nn.log_softmax(logits), ref))

    slopes = {k: jax.grad(expected, argnums=1)(k, logits) for k in (k1, k2)}
    assert_close(expected(k1, logits), exact(logits))
    assert_close(slopes[k1], 0.0)
    assert_close(slopes[k2], jax.grad(exact)(logits))


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_the_kl_estimator_is_the_one_that_is_named(name):
    batch = make_batch(ref_logprobs_BY=np.full((2, 5), np.log(0.5), np.float32))
    _, sums = loss_of(
        jnp.full((2, 5), np.log(0.25)), batch, kl_coef=0.0, kl_estimator=name
    )
    values = {"k1": np.log(0.5), "k2": 0.5 * np.log(0.5) ** 2, "k3": 1 + np.log(0.5)}
    assert_close(sums["kl"], 5 * values[name])


def test_imitation_is_the_cross_entropy_by_hand():
    batch = make_batch(weigh(MASK_KC, "grpo"))
    logprobs_BY = jnp.full((2, 5), -2.0).at[1].set(-3.0)
    loss, sums = imitation_loss(logprobs_BY, -logprobs_BY, batch)
    assert_close(loss, (2 + 3) / 2)
    assert_close([sums["tokens"], sums["entropy_sum"]], [5, 3 * 2 + 2 * 3])


def test_dpo_by_hand():
    """A pair whose preferred trajectory of two tokens gained 0.5 + 0.5 on the
    reference, the other's of one token -2: at beta 0.1 the margin is 0.3. The second
    pack is padding."""
    segments_BY = np.array([[1, 1, 2, -1], [-1] * 4], np.int32)
    trained_BY = np.array([[1, 1, 1, 0], [0] * 4], np.float32)
    batch = make_batch(
        weigh(trained_BY, "grpo", segments_BY),
        segments_BY=segments_BY,
        advantages_BY=np.array([[1, 1, -1, 0], [0] * 4], np.float32),
        ref_logprobs_BY=np.array([[-1, -1, -1, np.nan], [np.nan] * 4], np.float32),
    )
    logprobs_BY = jnp.array([[-0.5, -0.5, -3.0, 9.0], [9.0] * 4])

    def loss(logprobs_BY):
        return dpo_loss(logprobs_BY, jnp.ones((2, 4)), batch, beta=0.1)

    (value, sums), grad = jax.value_and_grad(loss, has_aux=True)(logprobs_BY)
    assert_close(value, np.log(1 + np.exp(-0.3)))  # 0.5544
    slope = 0.1 / (1 + np.exp(0.3))
    assert_close(grad, [[-slope, -slope, slope, 0], [0] * 4])
    assert_close([sums["margin"], sums["preferred_share"]], [0.3, 1.0])

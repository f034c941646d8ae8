"""Adapters: what they compute, and that nothing else is trained, kept or moved."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters import (
    LORA,
    TOKENS_BT,
    TX,
    WEIGHTS_BT,
    adapted_to,
    assert_close,
    assert_same,
    forward,
    objective,
    rng,
    size,
)
from fakes import group, kept, trajectory

from ovd_jax.cli import flags
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import (
    Stepper,
    TrainState,
    add_gradients,
    policy_objective,
    zero_gradients,
)
from ovd_jax.models import hf
from ovd_jax.models.lora import TARGETS, Lora, adapt, merge, trainable, without_adapters
from ovd_jax.models.transformer import REMAT
from ovd_jax.rollout.pack import pack
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.wiring.models import load_student

PART = (TOKENS_BT, WEIGHTS_BT, None)


@pytest.fixture(scope="module")
def adapted(model):
    return adapted_to(model)


def names(tree) -> set[str]:
    """The last words of the paths of all arrays."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p).split(".")[-2] for p, _ in paths}


def gradients(model, *parts, remat="none"):
    add = functools.partial(add_gradients, functools.partial(objective, remat=remat))
    grads = zero_gradients(model)
    for part in parts:
        grads, _ = jax.jit(add)(model, grads, part)
    return grads


def test_a_model_starts_as_it_was_and_shares_its_arrays(model):
    fresh = adapt(model, LORA, jax.random.key(0))
    assert_close(forward(fresh, TOKENS_BT), forward(model, TOKENS_BT), 1e-6)
    for name in TARGETS:
        ours, theirs = getattr(fresh.layers, name), getattr(model.layers, name)
        assert ours.kernel[...] is theirs.kernel[...]
        layers, inputs, outputs = theirs.kernel.shape
        assert ours.lora_a.shape == (layers, inputs, 3)
        assert ours.lora_b.shape == (layers, 3, outputs)
        a_NIL = np.asarray(ours.lora_a) * inputs**0.5
        assert 0.7 < np.abs(a_NIL).max() <= 1  # peft: uniform within 1 / sqrt(D)
        assert not np.array_equal(a_NIL[0], a_NIL[1])
        assert theirs.lora_a is None


def test_rank_0_is_the_model_itself(model):
    assert adapt(model, dataclasses.replace(LORA, rank=0), jax.random.key(0)) is model
    assert trainable(model) is model


def test_an_adapted_map_by_hand(adapted):
    q = jax.tree.map(lambda x: x[1], adapted.layers).q
    x_BTD = rng.standard_normal((2, 3, 16)).astype(np.float32)
    kernel, bias, a, b = map(np.asarray, (q.kernel, q.bias, q.lora_a, q.lora_b))
    assert_close(q(x_BTD), x_BTD @ kernel + bias + 6.0 / 3 * (x_BTD @ a) @ b)


@pytest.mark.parametrize("targets", [TARGETS, ("q", "down"), ("v",)])
def test_merged_weights_give_the_same_logits(targets, model):
    adapted = adapted_to(model, dataclasses.replace(LORA, targets=targets))
    merged = merge(adapted)
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    logits_BTV = forward(adapted, TOKENS_BT)
    assert_close(forward(merged, TOKENS_BT), logits_BTV)
    assert np.abs(logits_BTV - forward(model, TOKENS_BT)).mean() > 0.1
    changed = {
        name
        for name in TARGETS
        if np.any(
            getattr(merged.layers, name).kernel[...]
            != getattr(model.layers, name).kernel[...]
        )
    }
    assert changed == set(targets)


def test_under_the_adapters_is_the_model_that_was(model, adapted):
    below = without_adapters(adapted)
    assert jax.tree.structure(below) == jax.tree.structure(model)
    pairs = zip(jax.tree.leaves(below), jax.tree.leaves(model), strict=True)
    assert all(ours is theirs for ours, theirs in pairs)


def test_gradients_are_those_of_the_merged_weights_by_the_chain_rule(adapted):
    """dA = scale dW B^T and dB = scale A^T dW, in every layer."""
    grads, whole = gradients(adapted, PART), gradients(merge(adapted), PART)
    assert names(grads) == {"lora_a", "lora_b"}
    for name in TARGETS:
        linear, actual = getattr(adapted.layers, name), getattr(grads.layers, name)
        kernel_NDF = np.asarray(getattr(whole.layers, name).kernel)
        a_NIL, b_NRF = np.asarray(linear.lora_a), np.asarray(linear.lora_b)
        # Their entries go up to 20: sums of float32 differ by the order they have.
        expected_a = 2.0 * kernel_NDF @ b_NRF.swapaxes(1, 2)
        assert_close(actual.lora_a, expected_a, tolerance=1e-4)
        expected_b = 2.0 * a_NIL.swapaxes(1, 2) @ kernel_NDF
        assert_close(actual.lora_b, expected_b, tolerance=1e-4)
        assert np.abs(actual.lora_a).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("remat", REMAT)
def test_recomputing_layers_and_adding_up_parts_change_no_gradient(remat, adapted):
    halves = [tuple(x[rows] for x in PART[:2]) for rows in (slice(2), slice(2, 4))]
    parts = [(*half, None) for half in halves]
    actual = gradients(adapted, *parts, remat=remat)
    jax.tree.map(assert_close, actual, gradients(adapted, PART))


def test_a_frozen_head_has_no_gradient_computed(config, make_model):
    """The product that gives the head's gradient is in the program of full fine-tuning
    and not in that of adapters."""
    large = dataclasses.replace(config, vocab_size=3001, width=64)
    model = make_model(large)
    grad = jax.jit(functools.partial(add_gradients, objective))

    def computes_it(model) -> bool:
        program = grad.lower(model, zero_gradients(model), PART).as_text()
        products = [line for line in program.splitlines() if "dot_general" in line]
        return any("-> tensor<3001x64xf32>" in line for line in products)

    assert computes_it(model)
    assert not computes_it(adapt(model, LORA, jax.random.key(0)))


def temporaries(model, remat: str) -> int:
    """Bytes that the gradient of a few long rows needs."""
    part = (np.zeros((4, 128), np.int32), np.ones((4, 128), np.float32), None)
    add = functools.partial(add_gradients, functools.partial(objective, remat=remat))
    grads = jax.eval_shape(zero_gradients, model)
    compiled = jax.jit(add).lower(model, grads, part).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_adapters_keep_of_a_layer_what_full_fine_tuning_does(config, make_model):
    """One output of a linear map, and not one of the map and one of its adapters."""
    kept = {}
    for rank in (0, 3):
        lora = dataclasses.replace(LORA, rank=rank)
        shallow, deep = (
            adapt(
                make_model(dataclasses.replace(config, num_layers=n, mlp_width=256)),
                lora, jax.random.key(0),
            )
            for n in (8, 16)
        )  # fmt: skip
        kept[rank] = temporaries(deep, "matmuls") - temporaries(shallow, "matmuls")
    assert 0 < kept[3] < 1.05 * kept[0]


@pytest.mark.slow
def test_a_frozen_base_is_kept_as_it_is_computed_with(model, tmp_path):
    """In half the bytes, with no number other than from float32."""
    hf.save(model, tmp_path)
    config = flags.load_file("configs/default.py").copy_and_resolve_references()
    config.compute_dtype, config.lora.rank = "bfloat16", 3
    halved = load_student(tmp_path, config)
    kept = {
        x.dtype.name
        for x in jax.tree.leaves(without_adapters(halved).layers)
        if x.ndim == 3
    }
    assert kept == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(trainable(halved))} == {"float32"}
    lora = Lora(**config.lora)
    whole = adapt(hf.load(tmp_path, jnp.bfloat16), lora, jax.random.key(config.seed))
    assert_same(forward(halved, TOKENS_BT), forward(whole, TOKENS_BT))
    assert_same(gradients(halved, PART), gradients(whole, PART))
    config.lora.rank = 0
    master = load_student(tmp_path, config)
    assert {x.dtype.name for x in jax.tree.leaves(master)} == {"float32"}


def test_moments_are_kept_of_adapters_alone(adapted):
    state = TrainState.create(adapted, TX)
    adapters = size(trainable(adapted))
    assert adapters == sum(
        3 * sum(getattr(adapted.layers, name).kernel.shape[1:]) * 2 for name in TARGETS
    )
    assert 2 * adapters <= size(state.opt_state) <= 2 * adapters + 9
    assert size(adapted) > 2 * adapters


def make_batch():
    groups = [
        group(*[kept(trajectory(n, first=first), 0.0) for n in (5, 3)], prompt=(7, 8))
        for first in (3, 9)
    ]
    return pack(groups, [[[1.0], [-1.0]]] * 2, length_multiple=8, max_tokens=64)


@pytest.mark.slow
def test_learning_changes_adapters_and_nothing_else(model):
    """The reference is what lies under them: its arrays stay where they are."""
    adapted = adapted_to(jax.tree.map(jnp.copy, model))
    policy = functools.partial(
        policy_objective, clip_low=0.2, clip_high=0.2, kl_coef=0.1
    )
    learner = Learner(
        Objective(policy, 1.0, reference=without_adapters(adapted)), tx=TX,
        minibatches=2, epochs=2, chunk=4, aggregation="grpo", max_tokens=16,
    )  # fmt: skip
    start = jax.tree.map(jnp.copy, adapted)
    batch, shape = make_batch()
    state = TrainState.create(adapted, TX)
    after, metrics = learner.learn(state, batch, microbatch=shape.microbatch, seed=0)
    assert int(after.step) == 4
    assert metrics["kl"] > 1e-3
    assert metrics["grad_norm"] > 1e-3
    new, old = (
        jax.tree.leaves(without_adapters(after.model)),
        jax.tree.leaves(without_adapters(adapted)),
    )
    assert all(ours is theirs for ours, theirs in zip(new, old, strict=True))
    assert_same(without_adapters(after.model), model)
    moved = jax.tree.map(jnp.not_equal, trainable(after.model), trainable(start))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(moved))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(trainable(adapted)))


def test_a_gradient_that_is_not_finite_is_skipped(model):
    state = TrainState.create(adapted_to(model), TX)
    start = jax.tree.map(jnp.copy, trainable(state.model))
    bad = (TOKENS_BT, WEIGHTS_BT * np.inf, None)
    state, metrics = Stepper(objective, TX)(state, [bad])
    assert int(metrics["skipped_steps"]) == 1
    assert_same(trainable(state.model), start)


def test_the_sampler_draws_from_the_adapted_model(adapted):
    prompt, count = (7, 1, 4), 20
    sampler = Sampler(tokenizer=None, stop_ids=(), max_new_tokens=count)
    (completions,) = sampler(adapted, [prompt], seed=0, samples=4)
    rows_BT = np.array([(*prompt, *c.tokens) for c in completions], np.int32)
    all_BTV = jax.nn.log_softmax(forward(adapted, rows_BT))
    picked = jnp.take_along_axis(all_BTV[:, :-1], rows_BT[:, 1:, None], -1)[..., 0]
    assert_close([c.logprobs for c in completions], picked[:, -count:], 1e-4)

"""One optimizer step: what it does not depend on, what it skips, and its schedule."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ovd_jax.learning.batch import PADDING, Batch, TopK
from ovd_jax.learning.distill import reverse_kl_policy_loss
from ovd_jax.learning.learner import Learner, cut, means
from ovd_jax.learning.losses import token_weights
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import (
    Stepper,
    TrainState,
    apply_gradients,
    batch_logprobs,
    imitation_objective,
    optimizer,
    policy_objective,
)

LENGTHS = ((2, 3), (6, 1), (5, 0), (1, 4), (6, 0), (3, 3))  # of each pack's completions
OPTIMIZER = dict(
    learning_rate=1e-2, schedule="constant", warmup_steps=0, total_steps=9,
    weight_decay=0.01, b1=0.9, b2=0.99, grad_clip=1e3,
)  # fmt: skip
POLICY = functools.partial(
    policy_objective, clip_low=0.2, clip_high=0.3, kl_coef=0.1, entropy_coef=0.05
)
LOSS = dict(temperature=1.0, chunk=64, remat="none")
TX = optimizer(**OPTIMIZER)


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


class Bigram(flax.struct.PyTreeNode):
    """A model that looks at one token only, and compiles in no time."""

    embed_VD: jax.Array
    head_VD: jax.Array

    def hidden(self, tokens_BT, layout=None, *, remat="none"):
        return self.embed_VD[tokens_BT]

    @classmethod
    def create(cls):
        rng = np.random.default_rng(2)
        return cls(*jnp.asarray(rng.standard_normal((2, 26, 8)), jnp.float32))


def logprobs(model, batch, *, chunk=64):
    return np.asarray(batch_logprobs(model, batch, temperature=1.0, chunk=chunk))


@pytest.fixture(scope="module")
def batch(model) -> Batch:
    """Ragged completions, of a policy and a reference a little off the model."""
    rng = np.random.default_rng(0)
    shape = (6, 7)
    ids = [[1] * a + [2] * b + [PADDING] * (7 - a - b) for a, b in LENGTHS]
    offsets = [[*range(a), *range(b), *[0] * (7 - a - b)] for a, b in LENGTHS]
    segments_BY = np.array(ids, np.int32)
    trained_BY = segments_BY > 0
    batch = Batch(
        prompts_BX=rng.integers(0, 26, (6, 4)).astype(np.int32),
        prompt_lengths_B=np.array([1, 4, 3, 2, 4, 1], np.int32),
        tokens_BY=rng.integers(0, 26, shape).astype(np.int32),
        segments_BY=segments_BY,
        offsets_BY=np.array(offsets, np.int32),
        weights_BY=token_weights(
            trained_BY, segments_BY, aggregation="dapo", max_tokens=8
        ),
        teacher_BY=trained_BY & (np.arange(6) % 2 == 1)[:, None],
        advantages_BY=rng.standard_normal(shape).astype(np.float32),
        sampler_logprobs_BY=np.zeros(shape, np.float32),
        bin_size=7,
    )
    own_BY = logprobs(model, batch)
    drift_BY, more_BY = 0.3 * rng.standard_normal((2, *shape)).astype(np.float32)
    return batch.replace(
        sampler_logprobs_BY=own_BY,
        behavior_logprobs_BY=own_BY + drift_BY,
        ref_logprobs_BY=own_BY + more_BY,
    )


def stepper(**changes) -> Stepper:
    return Stepper(functools.partial(POLICY, **LOSS | changes), TX)


def create(model) -> TrainState:
    """A state of copies, so that donating it leaves `model` alone."""
    return TrainState.create(jax.tree.map(jnp.copy, model), TX)


step = stepper()


@pytest.fixture(scope="module")
def updated(model, batch):
    """(state, sums) after one step on the whole batch at once."""
    return step(create(model), [batch])


def test_a_batch_cut_up_and_padded_gives_the_same_update(model, batch, updated):
    """In parts of four packs, two of them nothing, and chunks of seven tokens, layers
    recomputed, and three columns of padding full of noise."""

    def padded(x):
        if x.ndim == 1:
            return x
        noise = np.random.default_rng(1).integers(1, 20, (6, 3)).astype(x.dtype)
        return np.concatenate([x, noise], axis=1)

    wide = jax.tree.map(padded, batch.replace(bin_size=10)).replace(
        prompts_BX=batch.prompts_BX,
        segments_BY=np.pad(
            batch.segments_BY, ((0, 0), (0, 3)), constant_values=PADDING
        ),
        weights_BY=np.pad(batch.weights_BY, ((0, 0), (0, 3))),
    )
    actual = stepper(chunk=7, remat="full")(create(model), cut(wide, 4))
    for name in ("mu", "nu"):  # of Adam: the gradient's, as `grad_clip` is far away
        moments = (optax.tree.get(s.opt_state, name) for s, _ in (actual, updated))
        jax.tree.map(assert_close, *moments)
    assert actual[1].keys() == updated[1].keys()
    for name, value in updated[1].items():
        assert_close(actual[1][name], value)
    assert 0.05 < updated[1]["clipped_sum"] / updated[1]["tokens"] < 0.95
    assert updated[1]["grad_norm"] > 0.1


@pytest.mark.parametrize("chunk", [3, 1000])
def test_logprobs_do_not_depend_on_how_they_are_cut_up(chunk, model, batch):
    parts = [logprobs(model, part, chunk=chunk) for part in cut(batch, 4)]
    assert_close(np.concatenate(parts)[:6], logprobs(model, batch))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(
    poison, model, batch, updated
):
    advantages_BY = batch.advantages_BY.copy()
    advantages_BY[2, 3] = poison
    bad = batch.replace(advantages_BY=advantages_BY)
    start, state = create(model), create(model)
    for count in (1, 2):
        state, metrics = step(state, [bad])
        assert int(state.step) == int(metrics["skipped_steps"]) == count
        assert not np.isfinite(metrics["grad_norm"])
    assert_same(state.model, start.model)
    assert_same(state.opt_state.inner_state, start.opt_state.inner_state)
    state, metrics = step(state, [batch])  # goes on as if nothing had been
    assert (int(state.step), int(metrics["skipped_steps"])) == (3, 2)
    assert_same(state.model, updated[0].model)
    assert_same(state.opt_state.inner_state, updated[0].opt_state.inner_state)


@pytest.fixture(scope="module")
def learned(batch):
    """What two minibatches and three epochs did, by `learn` and one by one."""
    learner = Learner(
        Objective(POLICY, 0.6, reference=Bigram.create()), tx=TX, minibatches=2,
        epochs=3, aggregation="dapo", max_tokens=8, chunk=64,
    )  # fmt: skip
    before, again = create(Bigram.create()), create(Bigram.create())
    ready = learner.with_logprobs(before.model, batch, 2)
    steps = []
    for part in learner.split(ready, seed=5):
        weights = token_weights(
            part.weights_BY > 0, part.segments_BY, aggregation="dapo", max_tokens=8
        )
        again, metrics = learner.stepper(again, [part.replace(weights_BY=weights)])
        steps.append(jax.device_get(metrics))
    after, averaged = learner.learn(before, batch, microbatch=2, seed=5)
    return {
        "learner": learner, "before": before, "ready": ready, "after": after,
        "means": averaged, "again": again, "steps": steps,
    }  # fmt: skip


def test_a_batch_is_minibatches_times_epochs_steps(learned):
    """Parts of two packs add up to what a minibatch of three does at once."""
    assert int(learned["after"].step) == learned["learner"].steps_a_batch == 6
    jax.tree.map(assert_close, learned["after"].model, learned["again"].model)
    rows = [dict(metrics) for metrics in learned["steps"]]
    for name, value in means([dict(row) for row in rows]).items():
        assert_close(learned["means"][name], value, 1e-4)
    losses = [row["loss"] for row in rows]
    assert_close(learned["means"]["loss"], np.mean(losses))
    ratios = [row["ratio_sum"] / row["tokens"] for row in rows]
    assert_close(learned["means"]["ratio"], np.mean(ratios))
    norms = [row["grad_norm"] for row in rows]
    assert_close(learned["means"]["grad_norm_var"], np.var(norms), 1e-4)


def test_the_ratio_starts_at_one_and_only_there(learned):
    """Behavior stays the policy before the first step, at the same temperature."""
    first, *_, last = learned["steps"]
    assert_close([first["ratio_sum"] / first["tokens"], first["clipped_sum"]], [1, 0])
    assert_close(first["kl"], 0)
    assert last["clipped_sum"] > 0.1 * last["tokens"]
    assert last["kl"] > 1e-3


def test_a_single_step_a_batch_is_its_own_behavior(batch):
    """And equals the step that is told its log-probabilities."""
    learner = Learner(
        Objective(POLICY, 1.0), tx=TX, minibatches=1, epochs=1, aggregation="dapo",
        max_tokens=8, chunk=64,
    )  # fmt: skip
    ready = learner.with_logprobs(Bigram.create(), batch.replace(
        behavior_logprobs_BY=None, ref_logprobs_BY=None), 2)  # fmt: skip
    assert ready.behavior_logprobs_BY is ready.ref_logprobs_BY is None
    told = ready.replace(behavior_logprobs_BY=logprobs(Bigram.create(), batch))
    states = [learner.stepper(create(Bigram.create()), [x])[0] for x in (ready, told)]
    jax.tree.map(assert_close, *[state.model for state in states])


@pytest.mark.parametrize("alternatives", [1, 5, 20])
def test_a_policy_gradient_does_not_look_at_a_teachers_other_tokens(
    alternatives, batch
):
    """42 tokens in chunks of 5, whatever else the batch has of each of them."""
    rng = np.random.default_rng(6)
    shape = (*batch.tokens_BY.shape, alternatives)
    top = TopK(rng.integers(0, 26, shape), rng.random(shape).astype(np.float32))
    own_BY = -rng.random(batch.tokens_BY.shape).astype(np.float32)
    batch = batch.replace(teacher_logprobs_BY=own_BY)
    step = stepper(chunk=5, loss_fn=reverse_kl_policy_loss)
    expected, _ = step(create(Bigram.create()), [batch])
    found, _ = step(create(Bigram.create()), [batch.replace(teacher_top=top)])
    assert_same(found.model, expected.model)


def test_the_reference_is_neither_trained_nor_donated(learned):
    assert_same(learned["learner"].objective.reference, Bigram.create())
    leaves = jax.tree.leaves(learned["before"].model)
    assert all(leaf.is_deleted() for leaf in leaves)
    ready = learned["ready"]
    later = learned["learner"].with_logprobs(learned["after"].model, ready, 6)
    assert_same(later.ref_logprobs_BY, ready.ref_logprobs_BY)
    assert np.abs(later.behavior_logprobs_BY - ready.behavior_logprobs_BY).max() > 0.1


def test_imitation_is_the_weighted_sum_of_the_cross_entropy():
    """Of every token but a row's first, whatever that weighs."""
    rng = np.random.default_rng(0)
    tokens_BT = rng.integers(0, 26, (6, 9)).astype(np.int32)
    weights_BT = jnp.asarray(rng.random((6, 9)), jnp.float32)
    objective = functools.partial(imitation_objective, chunk=7, remat="none")
    run, model = Stepper(objective, TX), Bigram.create()
    all_BTV = jax.nn.log_softmax(model.embed_VD[tokens_BT[:, :-1]] @ model.head_VD.T)
    picked_BT1 = np.take_along_axis(np.asarray(all_BTV), tokens_BT[:, 1:, None], -1)
    state, first = run(create(model), [(tokens_BT, weights_BT, None)])
    assert_close(first["loss"], -np.sum(picked_BT1[..., 0] * weights_BT[:, 1:]), 1e-4)
    _, second = run(state, [(tokens_BT, weights_BT, None)])
    assert second["loss"] < first["loss"] - 0.01


def rates(count: int, **changes) -> list[float]:
    """By how much each of `count` steps moves a weight whose gradient is always 1."""
    options = OPTIMIZER | dict(weight_decay=0.0, total_steps=10) | changes
    tx = optimizer(**options)
    state = TrainState.create({"kernel": jnp.zeros(())}, tx)
    advance = jax.jit(
        lambda state: apply_gradients(state, {"kernel": jnp.ones(())}, tx=tx)
    )
    values = [0.0]
    for _ in range(count):
        state, _ = advance(state)
        values.append(-float(state.model["kernel"]))
    return np.diff(values)


RISE = [0.1, 0.2, 0.3, 0.4]
LEFT = np.arange(6) / 6  # of the six steps after the warm-up


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "expected"),
    [
        ("constant", 0, [0.4] * 3),
        ("constant", 1, [0.4] * 3),
        ("constant", 4, [*RISE, *[0.4] * 6]),
        ("linear", 4, [*RISE, *(0.4 * (1 - LEFT)), 0.0, 0.0]),
        ("cosine", 4, [*RISE, *(0.2 * (1 + np.cos(np.pi * LEFT))), 0.0, 0.0]),
        ("linear", 0, 0.4 * (1 - np.arange(10) / 10)),
    ],
)
def test_schedules_by_hand(schedule, warmup_steps, expected):
    changes = dict(learning_rate=0.4, schedule=schedule, warmup_steps=warmup_steps)
    assert_close(rates(len(expected), **changes), expected)


@pytest.mark.parametrize("steps_a_batch", [2, 3, 8])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_count_rollout_batches(schedule, steps_a_batch):
    """After as many batches the rate is what it is with one optimizer step a batch."""
    changes = dict(learning_rate=0.4, schedule=schedule, warmup_steps=4, total_steps=10)
    rate, cut = (
        optimizer(**OPTIMIZER | changes, steps_a_batch=n).schedule
        for n in (1, steps_a_batch)
    )
    assert_close(cut(4 * steps_a_batch - 1), 0.4)
    for batches in range(4, 12):
        assert_close(cut(batches * steps_a_batch), rate(batches))


def test_a_warm_up_may_end_within_a_batch():
    options = OPTIMIZER | dict(learning_rate=0.4, warmup_steps=1.25)
    rate = optimizer(**options, steps_a_batch=4).schedule
    assert_close([rate(n) for n in range(6)], [0.08, 0.16, 0.24, 0.32, 0.4, 0.4])


def test_the_learning_rate_told_is_the_last_one_applied():
    """Steps with a gradient that is not finite do not count."""
    options = OPTIMIZER | dict(learning_rate=0.4, warmup_steps=4, weight_decay=0.0)
    tx = optimizer(**options)
    state = TrainState.create({"kernel": jnp.zeros(())}, tx)
    told, moved = [tx.learning_rate(state)], []
    for gradient in (1.0, np.nan, 1.0, np.inf, 1.0):
        before = float(state.model["kernel"])
        grads = {"kernel": jnp.float32(gradient)}
        state, _ = apply_gradients(state, grads, tx=tx)
        told.append(tx.learning_rate(state))
        moved.append(before - float(state.model["kernel"]))
    assert_close(told, [0.1, 0.1, 0.1, 0.2, 0.2, 0.3])
    assert_close(moved, [0.1, 0.0, 0.2, 0.0, 0.3])


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="'step' is not one of constant, linear, cos"):
        optimizer(**OPTIMIZER | {"schedule": "step"})


@pytest.mark.parametrize(("grad_clip", "scale"), [(1.0, 0.2), (5.0, 1.0), (50.0, 1.0)])
def test_gradients_are_clipped_by_their_global_norm(grad_clip, scale):
    """3, 4 in two arrays have norm 5, and that is what is logged."""
    tx = optimizer(**OPTIMIZER | {"grad_clip": grad_clip})
    params = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    grads = {"a": jnp.array(3.0), "b": jnp.array([0.0, -4.0])}
    state, metrics = apply_gradients(TrainState.create(params, tx), grads, tx=tx)
    moments = optax.tree.get(state.opt_state, "mu")
    jax.tree.map(lambda m, g: assert_close(m, 0.1 * scale * g), moments, grads)
    assert_close(metrics["grad_norm"], 5.0)


def test_weights_decay_but_neither_norms_nor_biases(model):
    """Without a gradient, by learning_rate * weight_decay."""
    tx = optimizer(**OPTIMIZER | {"weight_decay": 10.0})
    zeros = jax.tree.map(jnp.zeros_like, model)
    run = jax.jit(functools.partial(apply_gradients, tx=tx))
    state, _ = run(TrainState.create(model, tx), zeros)
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(state.model),
        jax.tree.leaves(model),
        strict=True,
    )
    for (path, after), before in pairs:
        name = jax.tree_util.keystr(path)
        decays = not ("norm" in name or "bias" in name)
        assert_close(after, before * (0.9 if decays else 1.0))


@pytest.mark.slow
def test_weights_stay_float32_where_bfloat16_computes(config, make_model, batch):
    """Steps far below what bfloat16 can tell apart add up."""
    tx = optax.apply_if_finite(optax.sgd(1e-5), 2**30)
    model = make_model(config, dtype=jnp.bfloat16)
    assert model.hidden(batch.prompts_BX).dtype == jnp.bfloat16
    run = Stepper(functools.partial(POLICY, **LOSS), tx)
    state = TrainState.create(jax.tree.map(jnp.copy, model), tx)
    for _ in range(2):
        state, _ = run(state, [batch])
    assert {x.dtype.name for x in jax.tree.leaves(state.model)} == {"float32"}
    new, old = state.model.layers.gate.kernel[...], model.layers.gate.kernel[...]
    change = np.abs(new - old)
    assert 0 < change.max() < 2**-9 * np.abs(old).max()

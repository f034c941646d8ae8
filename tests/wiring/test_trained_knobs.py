"""Knobs of training that no field shows: what they do."""

import dataclasses
import itertools
import types

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wired import (
    VALUES,
    config_of,
    learner_of,
    values_of,
)

from ovd_jax.learning.divergences import make_divergence
from ovd_jax.models.lora import TARGETS
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.training import batches, methods
from ovd_jax.training.prefetch import DeviceLock, in_thread
from ovd_jax.wiring import training
from ovd_jax.wiring.models import find_model, load_student, load_tokenizer
from ovd_jax.wiring.student import held_out_sampler, student_sampler
from ovd_jax.wiring.task import make_task


def rates(config) -> list[float]:
    """The optimizer's rate at each of a run's steps: how far Adam moves a weight whose
    gradient stays the same."""
    tx = training.make_optimizer(config)
    update = jax.jit(tx.update)
    params, grads = {"norm": jnp.ones(())}, {"norm": jnp.full((), 0.01)}
    state, found = tx.init(params), []
    for _ in range(config.num_steps * config.minibatches * config.epochs):
        updates, state = update(grads, state, params)
        found.append(-float(updates["norm"]))
    return found


@pytest.mark.parametrize(
    ("minibatches", "epochs", "num_steps"), [(1, 1, 4), (2, 1, 7), (1, 3, 5), (2, 3, 6)]
)
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_schedule_ends_with_the_run(minibatches, epochs, num_steps, schedule):
    """Warm-up and decay count rollout batches, whatever optimizer steps each has."""
    config = config_of(
        minibatches=minibatches, epochs=epochs, num_steps=num_steps,
        **{"optimizer.schedule": schedule},
    )  # fmt: skip
    each, top = minibatches * epochs, VALUES["optimizer.learning_rate"]
    warm = int(VALUES["optimizer.warmup_steps"] * each)
    share = np.arange(num_steps * each - warm) / (num_steps * each - warm)
    decayed = {
        "constant": np.ones_like(share),
        "linear": 1 - share,
        "cosine": (1 + np.cos(np.pi * share)) / 2,
    }[schedule]
    expected = top * np.concatenate([(np.arange(warm) + 1) / warm, decayed])
    np.testing.assert_allclose(rates(config), expected, rtol=1e-3)


def test_the_optimizer_moves_as_its_knobs_say():
    """Two steps of AdamW on a matrix, by hand."""
    config = config_of(**{"optimizer.warmup_steps": 0.0,
                          "optimizer.schedule": "constant"})  # fmt: skip
    tx = training.make_optimizer(config)
    o = config.optimizer
    params = {"q": {"kernel": jnp.full((2, 2), 3.0)}}
    state, m, v = tx.init(params), 0.0, 0.0
    for step, size in enumerate((100.0, 1.0), 1):
        grads = {"q": {"kernel": jnp.full((2, 2), size)}}
        updates, state = tx.update(grads, state, params)
        g = min(size, o.grad_clip / 2)  # of a 2 x 2 matrix of equal entries
        m, v = o.b1 * m + (1 - o.b1) * g, o.b2 * v + (1 - o.b2) * g * g
        adam = (m / (1 - o.b1**step)) / ((v / (1 - o.b2**step)) ** 0.5 + 1e-8)
        expected = -o.learning_rate * (adam + o.weight_decay * 3.0)
        np.testing.assert_allclose(updates["q"]["kernel"], expected, rtol=1e-5)


def test_every_epoch_and_step_has_an_order_of_its_own():
    config = config_of(epochs=4, minibatches=2, **{"turns.max_observations": 0})
    learner = learner_of(config)
    groups = [
        fakes.group(fakes.kept(fakes.trajectory(2, first=10 * i), 0.0), prompt=(i + 1,))
        for i in range(8)
    ]
    buffer = RolloutBuffer(tuple(groups), [[[float(i)]] for i in range(8)], levels=10)
    batch, _ = batches.to_batch(config, buffer)

    def orders(seed):
        parts = [np.asarray(p.tokens_BY) for p in learner.split(batch, seed=seed)]
        assert len(parts) == 8
        return [
            np.concatenate([parts[2 * e], parts[2 * e + 1]]).tobytes() for e in range(4)
        ]

    found = [*orders(0), *orders(1), *orders(2)]
    assert len(set(found)) == len(found)
    assert orders(0) == found[:4]


def test_training_and_evaluation_sample_at_their_own_temperatures_in_turns():
    folder = find_model("quickstart", "student")
    tokenizer = load_tokenizer(folder)
    task = types.SimpleNamespace(stop_strings=())
    parts, device = (config_of(), folder, tokenizer, task), DeviceLock()
    sampler = device.sampler(student_sampler(*parts))
    tester = device.sampler(held_out_sampler(*parts))
    assert values_of(tester, "temperature") == [VALUES["eval_temperature"]]
    assert values_of(sampler, "temperature") == [VALUES["temperature"]]
    with device, pytest.raises(TimeoutError):
        in_thread(lambda: next(tester.stream(None, [[1]], seed=0))).result(timeout=0.2)


def test_the_student_is_loaded_as_its_knobs_say():
    folder = find_model("quickstart", "student")
    model = load_student(folder, config_of())
    layers = model.layers
    adapted = [x for x in TARGETS if getattr(layers, x).lora_a is not None]
    assert sorted(adapted) == sorted(VALUES["lora.targets"])
    assert layers.q.lora_a.shape[-1] == VALUES["lora.rank"]
    assert layers.q.lora_scale == VALUES["lora.alpha"] / VALUES["lora.rank"]
    assert model.attention == VALUES["attention"]
    assert layers.q.kernel.dtype == VALUES["compute_dtype"]


@pytest.mark.parametrize("baseline", ["after", "before", "union", "leave_one_out"])
@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_of_their_knobs(baseline, scale):
    group = fakes.group(
        fakes.kept(fakes.trajectory(2, 1), 1.0, fakes.verdict(9, 3)),
        fakes.kept(fakes.trajectory(1, 2), 0.0, fakes.verdict(2, 5)),
        fakes.kept(fakes.trajectory(1, 1), 0.5, fakes.verdict(7, 1)),
    )
    config = config_of(baseline=baseline, scale_by_std=scale)
    collector = types.SimpleNamespace(rules=methods.rules(config))
    expected = group_advantages(
        group, credit="hybrid", credit_weight=VALUES["credit_weight"], levels=10,
        baseline=baseline, scale_by_std=scale,
    )  # fmt: skip
    assert batches.advantages_of(config, collector, group, 10) == expected


def test_each_step_and_draw_has_problems_and_seeds_of_its_own():
    config = config_of(problems_per_step=5, **{"turns.max_observations": 0})
    asked = []

    def collect(problems, generate, *, seed, stream):
        asked.append((problems, seed))
        return []

    task = make_task(config)
    collector = types.SimpleNamespace(task=task, teacher=None, collect=collect)
    for step, draw in itertools.product(range(3), range(2)):
        batches.collect_groups(
            config, collector, print, None, step, draw, 4, batches.Stopwatch()
        )
    assert [len(problems) for problems, _ in asked] == [4] * 6
    assert len({seed for _, seed in asked}) == 6
    assert len({problems for problems, _ in asked}) == 6
    assert asked[0][0] == task.problems(0, 5)[:4]


def test_held_out_evaluation_is_of_its_knobs():
    config = config_of(eval_problems=10, eval_rows=4, eval_samples=3)
    calls = []

    class Sampler:
        def stream(self, model, prompts, *, seed, samples, draws):
            calls.append((model, len(prompts), samples))
            answer = types.SimpleNamespace(tokens=(), stopped=True)
            return [(row, answer) for row in range(len(prompts) * samples)]

    task = make_task(config)
    held_out = training.make_held_out(
        config, task=task, tokenizer=fakes.TOKENIZER, sampler=Sampler(),
        make_dialogue=lambda: None,
    )  # fmt: skip
    found = held_out.measure("the model")
    assert found["eval_accuracy"] == 0.0
    assert {(model, samples) for model, _, samples in calls} == {("the model", 3)}
    assert sum(prompts for _, prompts, _ in calls) == 10
    assert max(prompts for _, prompts, _ in calls) == 4


def test_a_batch_is_of_its_knobs():
    groups = [
        fakes.group(*[fakes.kept(fakes.trajectory(9), 0.0)] * 2, prompt=range(5))
        for _ in range(8)
    ]
    buffer = RolloutBuffer(tuple(groups), [[[0.0]] * 2] * 8, levels=10)
    batch, _ = batches.to_batch(config_of(minibatches=1), buffer)
    assert batch.tokens_BY.shape[1] % VALUES["length_multiple"] == 0
    microbatch = {
        tokens: batches.to_batch(
            config_of(minibatches=1, length_multiple=8, microbatch_tokens=tokens),
            buffer,
        )[1].microbatch
        for tokens in (64, 256, 8192)
    }
    assert microbatch[64] < microbatch[256] <= microbatch[8192]
    alone = RolloutBuffer(buffer.groups[:1], buffer.advantages[:1], levels=10)
    for minibatches in (1, 3, 5):  # each of them has a pack, if an empty one
        config = config_of(minibatches=minibatches)
        assert len(batches.to_batch(config, alone)[0].tokens_BY) == minibatches


def test_a_divergence_is_of_its_knobs():
    for name, beta in itertools.product(
        ("forward_kl", "reverse_kl", "jsd"), (0.2, 0.7)
    ):
        config = config_of(**{"distill.divergence": name, "distill.beta": beta})
        objective = methods.METHODS["token_kd"].objective(config, lambda: None, None)
        terms_of = objective.loss.keywords["terms_of"]
        student, teacher = map(
            jax.nn.log_softmax, jnp.array([[1.0, 2, 3], [3, 1, 0.5]])
        )
        expected = make_divergence(name, beta=beta)(student, teacher)
        np.testing.assert_array_equal(terms_of(student, teacher), expected)


@pytest.mark.parametrize("source", ["teacher", "data"])
def test_solutions_come_from_where_the_knob_says(source):
    config = config_of(**{"method": "seq_kd", "distill.solutions": source,
                          "turns.max_observations": 0})  # fmt: skip
    method = methods.method_of(config)
    assert method.needs_text_teacher(config) == (source == "teacher")
    teacher = fakes.FakeTeacher(demonstrate=lambda request, rng: "3+4\n#### 7")
    collector = fakes.collector(teacher, granularity="none", samples=1)
    problem = dataclasses.replace(fakes.problem("3+4", "7"), solution="#### 7")
    method.collect(config, collector, [problem], None, seed=0, stream=None)
    assert bool(teacher.demonstrated) == (source == "teacher")


def test_the_noise_of_a_simulator_grows_to_its_last_step(made):
    engine = made("served_simulator").engine
    first, last = VALUES["search.noise"]
    for step, expected in ((0, first), (VALUES["num_steps"], last)):
        engine.begin(step)
        assert engine.identity["noise"] == pytest.approx(expected)


def test_the_bounds_of_a_collapse_are_its_knobs(made):
    bounds = values_of(made("watch"), "bounds")[0]
    assert {name: bound[2] for name, bound in bounds.items()} == {
        name: VALUES[f"collapse.{name}"]
        for name in ("entropy", "zero_spread", "invalid_rate", "short", "truncated")
    }

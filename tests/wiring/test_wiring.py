"""Every knob reaches the object that it is for, in the field that it is for."""

import dataclasses
import functools
import itertools
import json
import types
from collections.abc import Mapping

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_fakes import TOKENIZER
from teacher_server import TeacherServer

from ovd_jax import evaluate
from ovd_jax.cli import flags
from ovd_jax.cli.knobs import knobs
from ovd_jax.errors import UserError
from ovd_jax.learning.distill import make_divergence
from ovd_jax.models.lora import TARGETS
from ovd_jax.reporting.collapse import CollapseDetector
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.tasks.qa import QATask
from ovd_jax.training import batches, methods
from ovd_jax.training.prefetch import DeviceLock, in_thread
from ovd_jax.wiring import training
from ovd_jax.wiring.env import make_dialogue, make_env, make_pool
from ovd_jax.wiring.models import find_model, load_student, load_tokenizer
from ovd_jax.wiring.search import make_search
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.student import held_out_sampler, student_sampler
from ovd_jax.wiring.task import eval_sets, make_task
from ovd_jax.wiring.teacher import make_teacher

# Values that tell a knob apart from every other; numbers in its range.
VALUES = {
    "aggregation": "dapo",
    "arithmetic.max_operand": 7,
    "arithmetic.max_operations": 6,
    "arithmetic.max_value": 41,
    "arithmetic.min_operations": 5,
    "baseline": "union",
    "beta": 2.25,
    "chunk": 1031,
    "clip_high": 0.29,
    "clip_low": 0.19,
    "collapse.entropy": 0.11,
    "collapse.invalid_rate": 0.12,
    "collapse.short": 13.0,
    "collapse.truncated": 0.14,
    "collapse.window": 15,
    "collapse.zero_spread": 0.16,
    "compute_dtype": "bfloat16",
    "attention": "blocked",
    "credit": "hybrid",
    "credit_weight": 0.37,
    "demonstration_tries": 17,
    "distill.beta": 0.43,
    "distill.divergence": "jsd",
    "distill.temperature": 1.44,
    "distill.top_k": 45,
    "distill.vocabulary": "top_k",
    "dpo_beta": 0.46,
    "engine_served_name": "teacher",
    "entropy_coef": 0.047,
    "epochs": 3,
    "eval_rows": 48,
    "eval_sampled_temperature": 0.49,
    "eval_samples": 11,
    "eval_temperature": 0.51,
    "feedback": "keep",
    "granularity": "hybrid",
    "imitation_coef": 0.52,
    "importance_cap": 5.3,
    "kl_coef": 0.054,
    "kl_estimator": "k2",
    "length_multiple": 56,
    "lora.alpha": 57.0,
    "lora.rank": 4,
    "lora.targets": ("q", "down"),
    "math_tolerance": 0.058,
    "max_new_tokens": 59,
    "max_replaced_steps": 18,
    "max_skipped": 19,
    "min_rows": 61,
    "minibatches": 2,
    "num_steps": 6,
    "only_correct": False,
    "optimizer.b1": 0.62,
    "optimizer.b2": 0.63,
    "optimizer.grad_clip": 64.0,
    "optimizer.learning_rate": 0.65,
    "optimizer.schedule": "linear",
    "optimizer.warmup_steps": 2.0,
    "optimizer.weight_decay": 0.66,
    "prompt_multiple": 67,
    "prompt_template": "plain",
    "qa.prompt": "world",
    "qa.reward": "em",
    "rejection": "soft",
    "remat": "full",
    "replacement": "suffix",
    "samples": 68,
    "scale_by_std": False,
    "search.max_concurrency": 71,
    "search.max_chars": 1072,
    "search.max_new_tokens": 73,
    "search.noise": (0.07, 0.74),
    "search.on_failure": "empty",
    "search.prompt": "plain",
    "search.retries": 75,
    "search.temperature": 0.76,
    "search.timeout_s": 77.0,
    "search.topk": 78,
    "step_aggregation": "last",
    "step_rule": "sentences",
    "stop_strings": ("never",),
    "surrogate": "cispo",
    "teacher.max_concurrency": 81,
    "teacher.max_new_tokens": 82,
    "teacher.on_failure": "drop",
    "teacher.prompt": "digits",
    "teacher.retries": 83,
    "teacher.rows": 84,
    "teacher.score_rule": "expected",
    "teacher.score_temperature": 0.85,
    "teacher.temperature": 0.86,
    "teacher.timeout_s": 87.0,
    "temperature": 0.88,
    "test_replaced_steps": 89,
    "test_score_rule": "sample",
    "test_threshold": 4,
    "threshold": 8,
    "top_k": 91,
    "top_p": 0.92,
    "turns.correction": "Not so.",
    "turns.mask_invalid": True,
    "turns.observation_tokens": 194,
    "turns.searches": 95,
    "turns.total_tokens": 196,
}

# (knob, object below, field): somewhere in the object a field of that name has the
# knob's value.
FIELDS = [
    *[
        (name, "student_sampler", name)
        for name in ("max_new_tokens", "temperature", "top_k", "top_p", "min_rows",
                     "prompt_multiple", "stop_strings")
    ],
    *[
        (name, "held_out_sampler", name)
        for name in ("max_new_tokens", "top_k", "top_p", "stop_strings")
    ],
    ("eval_temperature", "held_out_sampler", "temperature"),
    *[
        (name, "rules", name)
        for name in ("granularity", "step_aggregation", "rejection", "threshold",
                     "beta", "replacement", "demonstration_tries", "only_correct",
                     "max_replaced_steps", "feedback", "credit", "samples",
                     "max_new_tokens")
    ],
    *[
        (name, "learner", name)
        for name in ("minibatches", "epochs", "aggregation", "chunk", "temperature")
    ],
    ("max_new_tokens", "learner", "max_tokens"),
    *[
        (name, "objective", name)
        for name in ("chunk", "remat", "temperature", "surrogate", "clip_low",
                     "clip_high", "kl_coef", "kl_estimator", "entropy_coef",
                     "imitation_coef", "importance_cap")
    ],
    ("distill.top_k", "token_kd", "k"),
    ("distill.vocabulary", "token_kd", "vocabulary"),
    ("distill.temperature", "token_kd", "temperature"),
    ("dpo_beta", "dpo_pairs", "beta"),
    *[
        (f"turns.{name}", "dialogue", name)
        for name in ("searches", "total_tokens", "observation_tokens", "correction",
                     "mask_invalid")
    ],
    *[
        (f"arithmetic.{name}", "arithmetic", name)
        for name in ("min_operations", "max_operations", "max_operand", "max_value")
    ],
    ("step_rule", "math", "step_rule"),
    ("math_tolerance", "math", "tolerance"),
    ("qa.reward", "qa", "reward"),
    ("search.max_chars", "qa", "max_chars"),
    *[
        (f"teacher.{name}", "served_teacher", field)
        for name, field in (
            ("score_rule", "rule"), ("score_temperature", "score_temperature"),
            ("temperature", "temperature"), ("max_new_tokens", "max_new_tokens"),
            ("on_failure", "on_failure"), ("retries", "retries"),
            ("timeout_s", "timeout_s"),
        )
    ],
    ("teacher.max_new_tokens", "local_teacher", "max_new_tokens"),
    ("teacher.temperature", "local_teacher", "temperature"),
    ("teacher.score_rule", "local_teacher", "rule"),
    ("teacher.score_temperature", "local_teacher", "temperature"),
    ("teacher.rows", "local_teacher", "rows"),
    ("min_rows", "local_teacher", "min_rows"),
    ("prompt_multiple", "local_teacher", "prompt_multiple"),
    ("search.topk", "http", "topk"),
    ("search.timeout_s", "http", "timeout_s"),
    ("search.on_failure", "http", "on_failure"),
    ("search.topk", "served_simulator", "topk"),
    ("search.retries", "served_simulator", "retries"),
    ("search.timeout_s", "served_simulator", "timeout_s"),
    ("search.temperature", "served_simulator", "temperature"),
    ("search.max_new_tokens", "served_simulator", "max_tokens"),
    ("search.temperature", "local_simulator", "temperature"),
    ("search.max_new_tokens", "local_simulator", "max_new_tokens"),
    ("min_rows", "local_simulator", "min_rows"),
    ("collapse.window", "watch", "window"),
    ("max_skipped", "watch", "max_skipped"),
    ("test_score_rule", "rejecting", "score_rule"),
    ("test_threshold", "rejecting", "threshold"),
    ("test_replaced_steps", "rejecting", "max_replaced_steps"),
    ("max_new_tokens", "rejecting", "max_new_tokens"),
    ("eval_rows", "rejecting", "rows"),
    ("eval_rows", "direct", "rows"),
]  # fmt: skip


def config_of(**changes):
    """default.py with a value of its own for every knob."""
    config = flags.load_file("configs/default.py")
    with config.unlocked():
        config.update_from_flattened_dict(VALUES | changes)
    return config


# The objects


def walk(thing, seen=None):
    """(field, value) of everything that an object of ours is made of."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        parts = dict(thing.keywords) | {"func": thing.func}
        parts |= {f"argument {i}": x for i, x in enumerate(thing.args)}
    elif isinstance(thing, Mapping):
        parts = thing
    elif isinstance(thing, list | tuple):
        parts = {f"item {i}": x for i, x in enumerate(thing)}
    elif isinstance(thing, types.MethodType):
        parts = {"self": thing.__self__}
    elif isinstance(thing, types.FunctionType):
        cells = thing.__closure__ or ()
        parts = {f"cell {i}": cell.cell_contents for i, cell in enumerate(cells)}
        parts |= {"wrapped": getattr(thing, "__wrapped__", None)}
    elif type(thing).__module__.startswith("ovd_jax") and hasattr(thing, "__dict__"):
        parts = {} if hasattr(thing, "embed") else vars(thing)  # no model's weights
    else:
        return
    for name, value in parts.items():
        yield str(name).lstrip("_"), value
        yield from walk(value, seen)


def values_of(thing, field: str) -> list:
    return [value for name, value in walk(thing) if name == field]


def learner_of(config, wrap=lambda loss: loss):
    """A learner with the config's objective, whose loss is wrapped."""
    made = methods.method_of(config).objective(config, lambda: None, None)
    made = dataclasses.replace(made, loss=wrap(made.loss))
    return training.make_learner(config, training.make_optimizer(config), made)


class Called(Exception):
    pass


def objective_options(config) -> dict:
    """The options that the objective is called with in the end."""

    def called(model, part, **options):
        raise Called(options)

    def wrap(loss):
        return functools.partial(called, **loss.keywords)

    learner = learner_of(config, wrap)
    with pytest.raises(Called) as caught:
        learner.stepper.add({"w": jnp.zeros(2)}, {"w": jnp.zeros(2)}, None)
    return caught.value.args[0]


@pytest.fixture(scope="module")
def server():
    with TeacherServer(write=lambda text, seed: "Doc 1(Title: t) x") as server:
        yield server


@pytest.fixture(scope="module")
def made(server):
    """`made(name)`: an object of the table, built once."""
    opened = []

    def keep(thing):
        opened.append(thing)
        return thing

    folder = find_model("quickstart", "student")
    tokenizer = load_tokenizer(folder)
    plain = types.SimpleNamespace(stop_strings=())

    def config(**changes):
        return config_of(**{"eval_temperature": 0.51} | changes)

    def served(**changes):
        return config(**{"teacher.url": server.url} | changes)

    def search(**changes):
        return keep(make_search(config(**changes), training=True))

    def task(name, **changes):
        made = config(task=name, data="", held_out_data="", **changes)
        return make_task(made, TOKENIZER, lambda: None)

    def dialogue():
        made = config(**{"search.backend": "none"})
        pool = keep(make_pool(made, training=True))
        env = make_env(made, None, TOKENIZER)
        return make_dialogue(made, env, TOKENIZER, pool, training=True)

    def solver(threshold):
        made = served(
            **{"test_threshold": threshold, "turns.searches": 0, "engine": server.url}
        )
        student = evaluate.Student(made, StackOf(opened))
        return evaluate.make_solver(made, plain, student, 0.5, lambda: None)

    makers = {
        "student_sampler": lambda: student_sampler(config(), folder, tokenizer, plain),
        "held_out_sampler": lambda: held_out_sampler(
            config(), folder, tokenizer, plain
        ),
        "rules": lambda: methods.rules(config()),
        "learner": lambda: learner_of(config(**{"turns.searches": 0})),
        "objective": lambda: objective_options(config()),
        "token_kd": lambda: methods.METHODS["token_kd"].objective(
            config(), lambda: None, None
        ),
        "dpo_pairs": lambda: methods.METHODS["dpo_pairs"].objective(
            config(), lambda: None, None
        ),
        "dialogue": dialogue,
        "arithmetic": lambda: task("arithmetic"),
        "math": lambda: task("math"),
        "qa": lambda: task("qa"),
        "served_teacher": lambda: keep(make_teacher(served())),
        "local_teacher": lambda: make_teacher(config(**{"teacher.prompt": "embedded"})),
        "http": lambda: search(
            **{"search.backend": "http", "search.url": server.url + "/retrieve"}
        ),
        "served_simulator": lambda: search(
            **{"search.backend": "simulated", "search.url": server.url}
        ),
        "local_simulator": lambda: search(**{"search.backend": "simulated"}),
        "watch": lambda: CollapseDetector.of(
            **config().collapse, max_skipped=config().max_skipped
        ),
        "rejecting": lambda: solver(VALUES["test_threshold"]),
        "direct": lambda: solver(0),
    }
    yield functools.cache(lambda name: makers[name]())
    close(*opened)


class StackOf:
    """An ExitStack that a fixture empties."""

    def __init__(self, opened):
        self._opened = opened

    def callback(self, close, *parts):
        self._opened.append(types.SimpleNamespace(close=lambda: close(*parts)))


def test_no_value_of_the_table_is_a_default():
    default = knobs(flags.load_file("configs/default.py"))
    assert [knob for knob, value in VALUES.items() if default[knob][1] == value] == []


@pytest.mark.parametrize(("knob", "name", "field"), FIELDS)
def test_a_field_has_its_knobs_value(knob, name, field, made):
    found = values_of(made(name), field)
    assert VALUES[knob] in found, found
    foreign = {
        other
        for other, value in VALUES.items()
        if other.rpartition(".")[2] == knob.rpartition(".")[2]
        and other != knob
        and value in found
    }
    assert not foreign


# What no field shows


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
    config = config_of(epochs=4, minibatches=2, **{"turns.searches": 0})
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
    config = config_of(problems_per_step=5, **{"turns.searches": 0})
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
                          "turns.searches": 0})  # fmt: skip
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


def test_scorer_and_continuer_are_asked_each_at_its_own_server(tmp_path):
    from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest

    with (
        TeacherServer(model="judge") as scorer,
        TeacherServer(model="writer", write=lambda text, seed: "4") as continuer,
    ):
        config = config_of(**{
            "teacher.url": scorer.url, "teacher.served_name": "judge",
            "continuer.url": continuer.url, "continuer.served_name": "writer",
            "teacher.cache": str(tmp_path),
        })  # fmt: skip
        teacher = make_teacher(config)
        scorer.bodies.clear()
        continuer.bodies.clear()
        teacher.score([ScoreRequest("2+2", "", "4", True)], seed=0)
        assert scorer.bodies
        assert not continuer.bodies
        assert "from 0 to 9" in str(scorer.bodies)  # the prompt `digits`
        scorer.bodies.clear()
        teacher.demonstrate([DemonstrationRequest("2+2", "")], seed=0)
        teacher.close()
        (body,) = continuer.bodies
        assert not scorer.bodies
        assert (body["model"], body["temperature"]) == ("writer", 0.86)
        assert body.get("max_tokens", body.get("max_completion_tokens")) == 82
        assert list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("server", ["teacher", "search"])
def test_servers_get_their_own_keys_and_so_many_requests(server, monkeypatch):
    monkeypatch.setenv("OVD_KEY_TEACHER", "key-teacher")
    monkeypatch.setenv("OVD_KEY_SEARCH", "key-search")
    options = {f"{name}.api_key_env": f"OVD_KEY_{name.upper()}"
               for name in ("teacher", "search")}  # fmt: skip
    with TeacherServer(key=f"key-{server}", write=lambda text, seed: "x") as listening:
        options |= {f"{server}.url": listening.url, "search.backend": "simulated"}
        config = config_of(**options)
        if server == "teacher":
            made = make_teacher(config)
        else:
            made = make_search(config, training=False)
        found = values_of(made, "most") + [
            getattr(limit, "most", None) for limit in values_of(made, "limit")
        ]
        made.close()
    assert VALUES[f"{server}.max_concurrency"] in found


@pytest.mark.parametrize("policy", ["wait", "drop"])
def test_a_request_that_fails_is_repeated_for_ever_where_the_run_waits(policy, server):
    config = config_of(**{"teacher.url": server.url, "teacher.on_failure": policy})
    teacher = make_teacher(config)
    teacher.close()
    assert values_of(teacher, "wait") == [policy == "wait"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["simulated", "none"])
def test_golds_are_for_a_simulator_in_training(backend, training, server):
    config = config_of(**{"search.backend": backend, "search.url": server.url})
    engine = make_search(config, training=training)
    pool = make_pool(config, training=True)
    env = make_env(config, None, TOKENIZER)
    dialogue = make_dialogue(config, env, TOKENIZER, pool, training=training)
    close(engine, pool)
    assert values_of(engine, "with_golds") == [training]
    shown = values_of(dialogue, "with_golds")
    assert shown[-1] == (training and backend == "simulated")


def test_a_simulator_is_asked_at_its_server(server, tmp_path):
    from ovd_jax.search.base import Query

    config = config_of(**{
        "search.backend": "simulated", "search.url": server.url,
        "search.served_name": "teacher", "search.cache": str(tmp_path),
        "teacher.url": "http://127.0.0.1:9/v1",
    })  # fmt: skip
    engine = make_search(config, training=False)
    server.bodies.clear()
    engine.search([Query("who?")], seeds=[0])
    engine.close()
    (body,) = server.bodies
    assert "prompt" in body  # the prompt `plain` is no chat
    assert (body["model"], body["temperature"]) == ("teacher", 0.76)
    assert list(tmp_path.rglob("*.json"))


def test_sets_are_evaluated_as_their_knobs_say(tmp_path):
    rows = "".join(
        f'{{"id": "{n}", "question": "q{n}?", "answers": ["a"]}}\n' for n in range(20)
    )
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(rows)
    config = config_of(data=str(tmp_path), eval_sets=("one", "two@3"), eval_problems=9)
    task = QATask(data=str(tmp_path / "one.jsonl"), seed=0, chat=False)
    one, two = eval_sets(config, task)
    assert (one.name, one.samples, two.samples) == ("one", VALUES["eval_samples"], 3)
    assert len(one.problems) == len(two.problems) == 9
    assert evaluate.temperature(config, one) == VALUES["eval_temperature"]
    with config.unlocked():
        config.eval_temperature = 0.0
    assert evaluate.temperature(config, two) == VALUES["eval_sampled_temperature"]


def test_attempts_are_kept_where_the_knob_says(tmp_path):
    cache = evaluate.open_cache(config_of(eval_cache=str(tmp_path)))
    cache.put({"a": 1}, {"b": 2})
    assert list(tmp_path.rglob("*.json"))
    assert evaluate.open_cache(config_of(eval_cache="none")) is None


def test_attempts_are_rejected_and_kept_by_the_threshold_of_evaluation(made):
    found = values_of(made("rejecting"), "threshold")
    assert len(found) > 1  # of the solver, and of what its attempts are kept under
    assert set(found) == {VALUES["test_threshold"]}


def test_a_served_student_is_the_one_at_the_engine(made, server):
    made("direct")
    server.bodies.clear()
    stream = next(value for name, value in walk(made("direct")) if name == "stream")
    list(stream([[1, 2]], seed=0))
    (body,) = server.bodies
    assert (body["temperature"], body["top_p"]) == (0.5, VALUES["top_p"])
    assert body["max_tokens"] == VALUES["max_new_tokens"]
    assert body["top_k"] == VALUES["top_k"]
    assert body["model"] == VALUES["engine_served_name"]


@pytest.mark.parametrize(
    ("knob", "name"),
    [
        ("teacher.url", "teacher.served_name"),
        ("continuer.url", "continuer.served_name"),
        ("search.url", "search.served_name"),
        ("engine", "engine_served_name"),
    ],
)
def test_one_of_several_models_is_named_by_the_knob_of_its_server(knob, name):
    from ovd_jax.wiring.servers import make_transport

    models = [{"id": "one"}, {"id": "two"}]
    options = config_of().teacher
    with TeacherServer(models=models) as listening:
        for served, refused in (("", True), ("two", False)):
            transport = make_transport(listening.url, options, name=served, knob=knob)
            try:
                if refused:
                    with pytest.raises(UserError, match=f"set config.{name}\\."):
                        transport.run([transport.connect])
                else:
                    transport.run([transport.connect])
            finally:
                transport.close()


def test_the_knob_of_a_continuer_is_told_where_its_server_has_several_models():
    models = [{"id": "one"}, {"id": "two"}]
    with TeacherServer() as scorer, TeacherServer(models=models) as continuer:
        urls = {"teacher.url": scorer.url, "continuer.url": continuer.url}
        with pytest.raises(UserError, match=r"set config\.continuer\.served_name\."):
            make_teacher(config_of(**urls, **{"teacher.served_name": ""}))


def test_a_task_is_of_its_knobs(tmp_path):
    for name in ("train", "test"):
        rows = [
            {"id": str(n), "question": f"{name}{n} " + "x" * 9 * n, "answers": ["a"]}
            for n in range(12)
        ]
        (tmp_path / name).with_suffix(".jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )

    def orders(**changes):
        files = {"data": "train.jsonl", "held_out_data": "test.jsonl"}
        files = {knob: str(tmp_path / name) for knob, name in files.items()}
        knobs_of_it = {"task": "qa", "max_prompt_tokens": 999, **files} | changes
        task = make_task(config_of(**knobs_of_it), TOKENIZER)
        assert task.held_out(3)[0].question.startswith("test")
        problem, *_ = found = task.problems(0, 12)
        assert problem.question.startswith("train")
        assert task.prompt(problem).startswith("Answer") == ("qa.prompt" in changes)
        return [x.question for x in found]

    assert orders(seed=1) != orders(seed=2)
    with pytest.warns(UserWarning, match="max_prompt_tokens=64"):
        assert len(set(orders(max_prompt_tokens=64))) == 6
    assert len(set(orders(seed=1))) == 12
    assert orders(seed=1, **{"qa.prompt": "direct"}) == orders(seed=1)
    with pytest.raises(UserError, match="chat template"):
        orders(prompt_template="chat")

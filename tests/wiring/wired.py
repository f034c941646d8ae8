"""Values that tell each knob apart, and the fields of objects made of them."""

import dataclasses
import functools
import types
from collections.abc import Mapping

import jax.numpy as jnp
import pytest

from ovd_jax.cli import flags
from ovd_jax.training import methods
from ovd_jax.wiring import training

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
    "turns.max_observations": 95,
    "turns.total_tokens": 196,
}


def config_of(**changes):
    """default.py with a value of its own for every knob."""
    config = flags.load_file("configs/default.py")
    with config.unlocked():
        config.update_from_flattened_dict(VALUES | changes)
    return config


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


class StackOf:
    """An ExitStack that a fixture empties."""

    def __init__(self, opened):
        self._opened = opened

    def callback(self, close, *parts):
        self._opened.append(types.SimpleNamespace(close=lambda: close(*parts)))

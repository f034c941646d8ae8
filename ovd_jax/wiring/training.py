"""The parts of a training run, made of the config."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.conversation.collect import ConversationCollector
from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import Optimizer, optimizer
from ovd_jax.models.lora import without_adapters
from ovd_jax.models.transformer import Transformer
from ovd_jax.multihost.processes import on_main
from ovd_jax.own_code import names_code
from ovd_jax.rollout.collect import Collector
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.tasks.base import Task
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.text import Tokenizer
from ovd_jax.training.batches import collect
from ovd_jax.training.held_out import HeldOut
from ovd_jax.training.methods import method_of, rules
from ovd_jax.training.prefetch import LockedSampler, RolloutPrefetcher
from ovd_jax.wiring.models import load_model
from ovd_jax.wiring.teacher import make_teacher, make_token_teacher


def make_teachers(config: ConfigDict, tokenizer: Tokenizer) -> tuple:
    """(teacher of text, token-level teacher), None for each that the method does not
    need. The latter is a model in this process or `ServedTokens`."""
    method = method_of(config)
    token_teacher = None
    if method.needs_token_teacher:
        token_teacher = make_token_teacher(config, tokenizer)
    if not method.needs_text_teacher(config):
        return None, token_teacher
    model = token_teacher if isinstance(token_teacher, Transformer) else None
    judges = rules(config).granularity != "none"
    if judges and not names_code(config.teacher.model):  # whose prompt is its own
        say_what_is_accepted(config, config.threshold)
    return make_teacher(config, model, judges=judges), token_teacher


def say_what_is_accepted(config: ConfigDict, threshold: float) -> None:
    """Shows what a threshold means with the teacher's prompt."""
    prompt = load_prompt(config.teacher.prompt)
    on_main(print, prompt.meaning_of(threshold), file=sys.stderr)


def make_collector(
    config: ConfigDict, dialogue: Dialogue | None, **parts: Any
) -> Collector:
    """The collector; of conversations if there is a `dialogue`."""
    parts |= {"rules": rules(config), "template": load_prompt(config.teacher.prompt)}
    if dialogue is None:
        return Collector(**parts)
    return ConversationCollector(dialogue=dialogue, **parts)


def make_prefetcher(
    config: ConfigDict, collector: Collector, sampler: LockedSampler
) -> RolloutPrefetcher:
    """Collects the rollout batches of a run, ahead of time if the config says so."""
    return RolloutPrefetcher(
        functools.partial(collect, config, collector, sampler),
        batches=config.async_batches,
        folder=Path(config.run_dir) / "ahead",
    )


def make_held_out(
    config: ConfigDict,
    *,
    task: Task,
    tokenizer: Tokenizer,
    sampler: Sampler | LockedSampler,
    make_dialogue: Callable,
) -> HeldOut:
    """Held-out evaluation."""
    return HeldOut(
        task=task,
        tokenizer=tokenizer,
        sampler=sampler,
        make_dialogue=make_dialogue,
        problems=config.eval_problems,
        samples=config.eval_samples,
        rows=config.eval_rows,
        greedy=not config.eval_temperature,
        seed=config.seed,
    )


def make_optimizer(config: ConfigDict) -> Optimizer:
    """The optimizer; its schedule ends with the run."""
    return optimizer(
        **config.optimizer,
        total_steps=config.num_steps,
        steps_a_batch=config.minibatches * config.epochs,
    )


def make_objective(
    config: ConfigDict, folder: Path, model: Transformer, token_teacher: Any
) -> Objective:
    """The objective of the method for a student that starts as `model`, from
    `folder`."""
    reference = functools.partial(make_reference, config, folder, model)
    return method_of(config).objective(config, reference, token_teacher)


def make_reference(
    config: ConfigDict, folder: Path, model: Transformer
) -> Transformer | None:
    """The frozen reference: the base weights under the adapters, or a copy. None if the
    train state refreshes a reference of its own."""
    if config.reference_every:
        return None
    return without_adapters(model) if config.lora.rank else load_model(folder, config)


def make_learner(config: ConfigDict, tx: Optimizer, objective: Objective) -> Learner:
    """The learner of an objective."""
    return Learner(
        objective,
        tx=tx,
        minibatches=config.minibatches,
        epochs=config.epochs,
        aggregation=config.aggregation,
        max_tokens=longest(config),
        chunk=config.chunk,
        remat=config.remat,
    )


def longest(config: ConfigDict) -> int:
    """The most tokens that a trajectory may have."""
    turns = config.turns
    return turns.total_tokens if turns.max_observations else config.max_new_tokens

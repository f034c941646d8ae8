"""Teachers, of text and of tokens; one of your own is
`config.teacher.model=path/to/file.py:Class`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.client.cache import DiskCache
from ovd_jax.errors import UserError
from ovd_jax.models.transformer import Transformer
from ovd_jax.multihost.shared import SharedTeacher, SharedTokenTeacher, shared
from ovd_jax.own_code import build, names_code
from ovd_jax.sampling.completion import Completion
from ovd_jax.sampling.label_probs import label_probabilities
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.teacher.base import Teacher
from ovd_jax.teacher.local import LocalTeacher
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.teacher.roles import Roles
from ovd_jax.teacher.served_logprobs import ServedTokens
from ovd_jax.text import Tokenizer
from ovd_jax.training.objectives import likeliest_tokens
from ovd_jax.wiring.env import turn_ends, writes_thoughts
from ovd_jax.wiring.models import (
    find_model,
    load_model,
    load_tokenizer,
    text_sampler,
)
from ovd_jax.wiring.servers import make_transport


def make_teacher(
    config: ConfigDict, model: Transformer | None = None, *, judges: bool = True
) -> Teacher:
    """The teacher of `config`, with the continuer of `config.continuer` if it names
    one.

    `model` is the teacher's model, if it is loaded already. The teacher is asked for
    scores if it `judges`.
    """
    scorer = one_teacher(config, model, judges=judges)
    if not (config.continuer.url or config.continuer.model):
        return scorer
    other = config.copy_and_resolve_references()
    other.teacher.update(config.continuer)
    return Roles(scorer, one_teacher(other, judges=False, role="continuer"))


def one_teacher(
    config: ConfigDict,
    model: Transformer | None = None,
    *,
    judges: bool = True,
    role: str = "teacher",
) -> Teacher:
    """The model behind `config.teacher.url`, or in this process without a URL; user
    code gets the config. Errors name the knobs of its `role`."""
    if names_code(config.teacher.model):  # only process 0 asks
        own = build(config.teacher.model, "teacher.model", Teacher, config)
        return shared(SharedTeacher, own)
    if config.teacher.url:  # only process 0 asks
        served = served_teacher(config, judges=judges, role=role)
        return shared(SharedTeacher, served)
    return local_teacher(config, model or teacher_model(config), judges=judges)


def served_teacher(
    config: ConfigDict, *, judges: bool = True, role: str = "teacher"
) -> OpenAITeacher:
    """A model behind one or several URLs with an OpenAI-compatible API."""
    options = config.teacher
    transport = make_transport(
        options.url, options, name=options.served_name, knob=f"{role}.url"
    )
    return OpenAITeacher(
        transport,
        prompt=load_prompt(options.prompt),
        score_rule=options.score_rule,
        score_temperature=options.score_temperature,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        on_failure=options.on_failure,
        stop=turn_ends(config),
        cache=DiskCache(options.cache) if options.cache else None,
        judges=judges,
        thoughts=writes_thoughts(config),
    )


def sample_until(
    sampler: Sampler,
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[str] = (),
    **options: Any,
) -> list[list[Completion]]:
    """Calls `sampler` with `options` and additional stop strings."""
    if stop:
        stops = (*sampler.stop_strings, *stop)
        sampler = dataclasses.replace(sampler, stop_strings=stops)
    return sampler(model, prompts, **options)


def make_token_teacher(
    config: ConfigDict, tokenizer: Tokenizer
) -> Transformer | ServedTokens:
    """The teacher of token-level distillation: served, or a model in this process.

    Raises UserError if its tokenizer is not the student's.
    """
    options = config.teacher
    if options.url:
        transport = make_transport(options.url, options, name=options.served_name)
        top = max(likeliest_tokens(config), 1)  # 0 means "none at all" to servers
        served = ServedTokens(transport, tokenizer=tokenizer, top=top)
        return shared(SharedTokenTeacher, served)
    folder = find_model(options.model, "teacher")
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"The tokenizer of teacher.model={options.model} has another vocabulary "
            "than the student's. Token-level distillation needs one tokenizer; the "
            "methods ovd, seq_kd and dpo_pairs do not."
        )
    return teacher_model(config)


def teacher_model(config: ConfigDict) -> Transformer:
    """The weights that `config.teacher.model` names."""
    return load_model(find_model(config.teacher.model, "teacher"), config)


def local_teacher(
    config: ConfigDict, model: Transformer, *, judges: bool = True
) -> LocalTeacher:
    """A model in this process."""
    options = config.teacher
    folder = find_model(options.model, "teacher")
    tokenizer = load_tokenizer(folder, config.date)
    sampler = text_sampler(config, options, folder, tokenizer)
    if ends := turn_ends(config):
        sampler = dataclasses.replace(sampler, stop_strings=ends)
    return LocalTeacher(
        generate=functools.partial(sample_until, sampler, model),
        label_probabilities=functools.partial(
            label_probabilities, model, rows=options.rows
        ),
        tokenizer=tokenizer,
        prompt=load_prompt(options.prompt),
        score_rule=options.score_rule,
        score_temperature=options.score_temperature,
        judges=judges,
        thoughts=writes_thoughts(config),
    )

"""Environments, and conversations with them. One of your own is
`config.env=path/to/file.py:Class`."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.conversation.calculator import Calculator
from ovd_jax.conversation.dialogue import Dialogue, TurnRules
from ovd_jax.conversation.env import Env, check_form
from ovd_jax.conversation.refine import Refiner
from ovd_jax.conversation.search import SearchEnv, SearchTools
from ovd_jax.conversation.task import EnvTask
from ovd_jax.conversation.tools import ThreadTools, Tools
from ovd_jax.errors import UserError
from ovd_jax.multihost.shared import SharedCalls, shared
from ovd_jax.own_code import (
    build,
    check_members,
    code_digest,
    load_code,
    names_code,
)
from ovd_jax.sampling.completion import Generate
from ovd_jax.search.pool import SearchBatch, SearchThreads
from ovd_jax.tasks.base import Task
from ovd_jax.text import Tokenizer
from ovd_jax.threads import DaemonThreads
from ovd_jax.wiring import search

ENVS = {"search": SearchEnv, "calculator": Calculator}
_THREADS = 32  # calls of tools that run at a time
Pool = SearchThreads | SearchBatch | DaemonThreads


def env_class(config: ConfigDict) -> Any:
    """The class that `config.env` names, if turns have an environment at all. Raises
    UserError where it cannot be used."""
    if not config.turns.max_observations:
        return None
    if not names_code(config.env):
        if config.env not in ENVS:
            raise UserError(f"env {config.env!r} is not one of {', '.join(ENVS)}.")
        return ENVS[config.env]
    kind = load_code(config.env, "env")
    check_members(kind, config.env, "env", Env)
    check_form(kind, config.env)
    return kind


def turn_ends(config: ConfigDict) -> tuple[str, ...]:
    """The strings that end a turn; none where solutions have a single one."""
    kind = env_class(config)
    return kind.turn_ends if kind else ()


def writes_thoughts(config: ConfigDict) -> bool:
    """Whether thoughts in tags are a part of a turn, as in the turns of a search
    agent."""
    return getattr(env_class(config), "thinks", False)


def make_env(config: ConfigDict, task: Task, tokenizer: Tokenizer) -> Env | None:
    """The environment of `config`, whose problems are the task's; None where solutions
    have a single turn. One of the user's own is made of config, task and tokenizer."""
    kind = env_class(config)
    if kind is None:
        return None
    if names_code(config.env):
        return build(config.env, "env", Env, config, task, tokenizer)
    if kind is SearchEnv:
        return SearchEnv(task, correction=config.turns.correction)
    return kind(task)


def asked_by(env: Env | None, task: Task) -> Task:
    """The task with the prompts of its environment, if it has one."""
    return task if env is None else EnvTask(task, env)


def make_pool(config: ConfigDict, *, training: bool) -> Pool | None:
    """What the slow calls of conversations run in: for `search` the engine, which sees
    gold answers in `training` alone; None where there are no conversations."""
    if not config.turns.max_observations:
        return None
    if config.env == "search":
        return search.make_pool(config, training=training)
    return DaemonThreads(_THREADS)


def make_dialogue(
    config: ConfigDict,
    env: Env | None,
    tokenizer: Tokenizer,
    pool: Pool | None,
    *,
    training: bool,
    generate: Generate | None = None,
) -> Dialogue | None:
    """Conversations with `env` whose calls run in `pool`, of which they get a view of
    their own; None where there is no environment.

    In `training` a simulated engine is shown the gold answers. `generate` is the
    student's own, which `turns.refine` needs.
    """
    if env is None or pool is None:
        return None
    refine = None
    if config.turns.refine:
        if generate is None:
            raise UserError("turns.refine is for evaluation; set it to False.")
        chat = config.prompt_template == "chat"
        refine = Refiner(generate, tokenizer, chat=chat)
    names = [field.name for field in dataclasses.fields(TurnRules)]
    return Dialogue(
        env,
        make_tools(config, env, pool, training=training),
        rules=TurnRules(**{name: config.turns[name] for name in names}),
        tokenizer=tokenizer,
        refine=refine,
    )


def make_tools(config: ConfigDict, env: Env, pool: Pool, *, training: bool) -> Tools:
    """What carries out the calls of `env`: of several processes the first one does,
    unless the tool is a model that lies over the devices of all."""
    if isinstance(pool, DaemonThreads):
        return shared(SharedCalls, ThreadTools(env, pool))
    view = pool.view()
    if isinstance(view, SearchThreads):
        view = shared(SharedCalls, view)
    with_golds = training and config.search.backend == "simulated"
    return SearchTools(view, with_golds=with_golds)


def env_identity(config: ConfigDict, pool: Pool | None) -> dict[str, Any]:
    """What else decides an attempt that is a conversation, as JSON."""
    turns: dict = {"turns": config.turns.to_dict()}
    if config.turns.refine and config.test_threshold:
        turns["refined"] = "after all turns"  # of earlier versions: the latest
    if isinstance(pool, SearchThreads | SearchBatch):
        return turns | {"search": pool.identity}
    own = names_code(config.env)
    return turns | {"env": code_digest(config.env) if own else config.env}

"""The protocol of environments: what answers the student between its turns.

A turn is what the student writes up to one of the environment's `turn_ends`, its end
token or its budget. `step` says what the turn does, and the student goes on from the
observation. All else is the rollouts' (dialogue.py, collect.py), whatever the
environment: observations are cleaned, put between `observation_tags`, cut to their
budget and never trained on; turns are counted, scored by the teacher, and replaced.

To add an environment, write a class with these members and name it in `config.env`: see
examples/own_environment.py. It is made once a program, of (config, task, tokenizer).
Conversations share it and have no state in it: what a tool needs to know of the turns
before is in the `Conversation` that `call` gets, so that a turn can be replaced.
"""

import dataclasses
from typing import Protocol, TypeGuard

from ovd_jax.errors import UserError
from ovd_jax.search.base import Document
from ovd_jax.tasks.base import Problem


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the student reads after a turn, before it goes on.

    The text may be a stranger's and of any length: special tokens and the tags of the
    environment are broken up in it, and what is over `turns.observation_tokens` is cut.
    """

    text: str = ""
    valid: bool = True  # False: the turn did nothing, and `text` says what is wrong
    # What a search found, shown in the place of `text`, each document cut alike
    documents: tuple[Document, ...] | None = None

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise UserError(
                f"An observation's text is {self.text!r}; it must be a str."
            )


@dataclasses.dataclass(frozen=True)
class Done:
    """The conversation ends with this turn: the task rewards what the student wrote."""


@dataclasses.dataclass(frozen=True)
class Call:
    """The turn asks a slow tool, which answers while others are sampled."""

    query: str  # what `SlowEnv.call` gets


Step = Observation | Done | Call


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A conversation up to the turn that calls a tool."""

    problem: Problem | None  # without its answer in evaluation; None: not known
    turns: tuple[str, ...]  # all that were written, the one that calls last
    observations: tuple[str, ...]  # what was read after each turn but the last
    seed: int  # for tools that draw: a function of the run's seed and this place in it


class Env(Protocol):
    """An environment whose steps take no time, such as a calculator.

    `turn_ends` and `observation_tags` are class attributes.
    """

    turn_ends: tuple[str, ...]  # the first of them that is written ends a turn
    observation_tags: tuple[str, str]  # what stands before and after an observation

    def reset(self, problem: Problem) -> str:
        """The prompt after which the student writes its first turn: a function of the
        problem, for its samples share it."""
        ...

    def step(self, text: str) -> Observation | Done | Call:
        """What a turn of this text does: a function of the text, which may be asked
        for more than once. It may end in one of `turn_ends` or anywhere else.

        Any text must have an answer: what is raised here, as in `call`, ends the run.
        """
        ...


class SlowEnv(Env, Protocol):
    """An environment whose `step` may return a `Call`."""

    def call(self, query: str, conversation: Conversation) -> Observation:
        """What the tool answers. Runs in a thread, several at a time."""
        ...


def check_form(kind: object, name: str) -> None:
    """Raises UserError unless the class attributes of an environment can be used."""
    ends = getattr(kind, "turn_ends", None)
    tags = getattr(kind, "observation_tags", None)
    if not are_texts(ends) or "" in ends:
        raise UserError(
            f"{name}.turn_ends is {ends!r}; it must be a tuple of strings that end a "
            "turn, such as ('</tool>',)."
        )
    if not are_texts(tags) or len(tags) != 2 or tags == ("", ""):
        raise UserError(
            f"{name}.observation_tags is {tags!r}; it must be what stands before and "
            "after an observation, such as ('<result>', '</result>')."
        )


def are_texts(value: object) -> TypeGuard[tuple[str, ...]]:
    """Whether a value is a tuple of strings."""
    return isinstance(value, tuple) and all(isinstance(x, str) for x in value)

"""Conversations of a student with an environment: whole ones, and single turns.

Token ids are never made of what the student writes; text is only read off them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovd_jax.conversation.batch import Conversations, History, Row, numbered
from ovd_jax.conversation.env import (
    Call,
    Done,
    Env,
    Observation,
    Step,
    check_form,
)
from ovd_jax.conversation.reading import Reader
from ovd_jax.conversation.tools import Tools, guarded
from ovd_jax.errors import UserError
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem
from ovd_jax.text import Tokenizer, decode


@dataclasses.dataclass(frozen=True)
class TurnRules:
    """The knobs of conversations; `configs/default.py` explains each."""

    max_observations: int
    total_tokens: int
    observation_tokens: int
    mask_invalid: bool


class Dialogue:
    """Conversations between a student and an environment, whose slow calls `tools`
    carries out.

    `refine(findings, seed=)` gives the documents that are shown in place of what calls
    brought, such as what a model made of them (Search-o1).
    """

    def __init__(
        self,
        env: Env,
        tools: Tools,
        *,
        rules: TurnRules,
        tokenizer: Tokenizer,
        refine: Callable | None = None,
    ):
        check_form(env, type(env).__name__)
        self.env = env
        self.tools = tools
        self.rules = rules
        self.refine = refine
        self._tokenizer = tokenizer
        self._reader = Reader(env, tokenizer, most=rules.observation_tokens)
        self.least_room = self._reader.least_room  # tokens, for a turn that goes on

    def step(self, text: str) -> Step:
        """What a turn does. Raises EnvError where the environment raises, and UserError
        where it returns something else."""
        step = guarded(self.env, "step", text)
        if not isinstance(step, Observation | Done | Call):
            raise UserError(
                f"{type(self.env).__name__}.step returned {step!r}; return an "
                "Observation, a Call or Done()."
            )
        return step

    def is_valid(self, turn: str) -> bool:
        """Whether a turn does something."""
        step = self.step(turn)
        return not isinstance(step, Observation) or step.valid

    def ends(self, turn: str) -> bool:
        """Whether a turn ends its conversation."""
        return isinstance(self.step(turn), Done)

    def first_turn(self, text: str) -> str | None:
        """`text` up to the first end of a turn; None unless that makes it a valid one.

        A server that stops at closing tags leaves the last one out: it is put back.
        """
        ends = self.env.turn_ends
        places = [text.find(end) + len(end) for end in ends if end in text]
        turn = text[: min(places)] if places else text + left_out(text, ends)
        return turn if turn.strip() and self.is_valid(turn) else None

    def generate(
        self,
        sample: Callable,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | np.ndarray | None = None,
        problems: Sequence[Problem] | None = None,
        histories: Sequence[History] | None = None,
    ) -> Any:
        """`samples` conversations after each prompt, in the form in which `sample` (the
        sampler with a model, or its stream) gives completions: with `sample` bound it
        is a plain one itself.

        `problems` has one a prompt, for tools that need to know it; `histories` what of
        the conversation stands in each prompt already.
        """
        count = len(prompts)
        # What a call brings must not depend on the rows beside it, as a number would.
        own = [
            derive(0, place, sample)
            for place in numbered([tuple(map(int, prompt)) for prompt in prompts])
            for sample in range(samples)
        ]
        if draws is None:
            draws = np.arange(count * samples).reshape(count, samples)
        else:
            own = [int(draw) for numbers in draws for draw in numbers]
        asked = list(problems) if problems else [None] * count
        histories = histories or [History()] * count
        rows = []
        for i, draw in enumerate(own):
            history = histories[i // samples]
            rows.append(Row(asked[i // samples], draw, history, len(history.turns)))
        limits = [self.rules.total_tokens] * count if limits is None else limits
        return sample(
            prompts, seed=seed, samples=samples, limits=limits, draws=draws,
            environment=Conversations(self, rows, seed=seed),
        )  # fmt: skip

    def look_up(
        self,
        histories: Sequence[History],
        rooms: Sequence[int],
        *,
        seed: int,
        problems: Sequence[Problem],
    ) -> list[list[int]]:
        """What is read after the last turn of each history, which the student did not
        write and which does not end it, in tokens, `rooms` of them at most."""
        asked = [
            (problem.question, history.turns[-1])
            for problem, history in zip(problems, histories, strict=True)
        ]
        rows = [
            Row(problem, derive(0, place), history, left=room + 1)
            for problem, place, history, room in zip(
                problems, numbered(asked), histories, rooms, strict=True
            )
        ]
        for row in rows:
            row.step = self.step(row.history.turns[-1])
        environment = Conversations(self, rows, seed=derive(seed, "look up"))
        environment.start(range(len(rows)))
        return environment.observations(range(len(rows)))

    def metrics(self) -> dict[str, float]:
        """What calls cost, and how often observations were shortened to fit, since the
        last call."""
        cut, self._reader.cut = self._reader.cut, 0
        own = {"observations_cut": float(cut)} | self.tools.metrics()
        return own | getattr(self.refine, "metrics", dict)()

    def graded(self, turns: Sequence[str], text: str) -> str:
        """What the task grades of a conversation: what was written, or all of it where
        the environment's task measures what was read as well (`graded_whole`)."""
        return text if getattr(self.env, "graded_whole", False) else "".join(turns)

    def shown(self, observation: Observation, room: int) -> list[int]:
        """Tokens of an observation, `room` of them and `rules.observation_tokens` at
        most."""
        return self._reader.read(observation, room)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added."""
        return self._reader.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """What `tokens` say."""
        return decode(self._tokenizer, tokens)


def left_out(text: str, ends: Sequence[str]) -> str:
    """The closing tag of `ends` that a text which holds none of them has opened last;
    empty if it has opened none."""
    opened = [
        (text.rfind(f"<{end[2:]}"), end)
        for end in ends
        if end.startswith("</") and end.endswith(">")
    ]
    place, end = max(opened, default=(-1, ""))
    return end if place >= 0 else ""

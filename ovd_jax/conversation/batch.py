"""One batch of conversations with an environment, as the sampler sees it."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from ovd_jax.conversation.env import Call, Conversation, Done, Observation, Step
from ovd_jax.conversation.refine import Finding, refined
from ovd_jax.sampling.completion import Completion
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem


@dataclasses.dataclass(frozen=True)
class History:
    """The turns of a conversation, and what was read after each: after the last one
    nothing may have been."""

    turns: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()

    def and_turn(self, turn: str) -> "History":
        """With one turn more."""
        return History((*self.turns, turn), self.observations)

    def and_observation(self, observation: str) -> "History":
        """With one observation more."""
        return History(self.turns, (*self.observations, observation))

    def before_reading(self) -> "History":
        """Without what was read after the last turn."""
        return History(self.turns, self.observations[: len(self.turns) - 1])


@dataclasses.dataclass
class Row:
    """A conversation under way."""

    problem: Problem | None
    draw: int  # what its random numbers are made of
    history: History = History()
    observed: int = 0  # observations so far that count against the budget
    left: int = 0  # tokens, after the last turn
    step: Step | None = None  # what the last turn does

    @property
    def place(self) -> tuple:
        """What a call of this row is drawn from, beside the seed."""
        return ("search", self.draw, self.observed)


class Conversations:
    """The `Environment` of one batch of rows (see sampling/completion.py).

    All processes make the same calls of its dialogue's tools, which may be run by the
    first one alone, and act on the same results.
    """

    def __init__(self, dialogue, rows: list[Row], *, seed: int):
        self._dialogue = dialogue
        self._rows = rows
        self._seed = seed

    def ended(self, turns: Sequence[tuple[int, Completion, int]]) -> list[bool]:
        """Starts the calls of turns that make one and whose conversation goes on; see
        `Environment`."""
        going = []
        for number, turn, left in turns:
            row = self._rows[number]
            text = self._dialogue.decode(turn.tokens)
            row.history = row.history.and_turn(text)
            row.step, row.left = self._dialogue.step(text), left
            has_room = left >= self._dialogue.least_room
            has_tries = row.observed < self._dialogue.rules.max_observations
            going.append(not isinstance(row.step, Done) and has_tries and has_room)
        pairs = zip(turns, going, strict=True)
        self.start([number for (number, _, _), goes in pairs if goes])
        return going

    def start(self, numbers: Sequence[int]) -> None:
        """Starts the calls of those rows whose turn makes one."""
        calls = []
        for number in numbers:
            row = self._rows[number]
            if isinstance(row.step, Call):
                conversation = Conversation(
                    row.problem,
                    row.history.turns,
                    row.history.observations,
                    derive(self._seed, *row.place),
                )
                calls.append((self._key(number), row.step, conversation))
        self._dialogue.tools.start(calls)

    def observations(self, numbers: Sequence[int]) -> list[list[int]]:
        """The tokens that each row reads; see `Environment`."""
        rows = {number: self._rows[number] for number in numbers}
        brought = self._brought(rows)
        tokens = []
        for number, row in rows.items():
            observation = brought.get(number, row.step)
            tokens.append(self._dialogue.shown(observation, row.left - 1))
            text = self._dialogue.decode(tokens[-1])
            row.history = row.history.and_observation(text)
            row.observed += 1
        return tokens

    def _brought(self, rows: Mapping[int, Row]) -> dict[int, Observation]:
        """What the calls of `rows` brought, condensed where the dialogue refines."""
        called = {
            number: row.step.query
            for number, row in rows.items()
            if isinstance(row.step, Call)
        }
        taken = self._dialogue.tools.take([self._key(n) for n in called])
        brought = [Observation(*fields) for fields in taken]
        if self._dialogue.refine is not None and called:
            findings = [
                Finding.of(rows[n].history.turns, query, observation)
                for (n, query), observation in zip(called.items(), brought, strict=True)
            ]
            # Not of the rows' draws: no note may depend on what is found beside it.
            seed = derive(self._seed, "refine")
            notes = self._dialogue.refine(findings, seed=seed)
            brought = list(map(refined, brought, notes))
        return dict(zip(called, brought, strict=True))

    def first_turn(self, text: str) -> str | None:
        """The first turn of a text that a server cut at a stop string."""
        return self._dialogue.first_turn(text)

    def _key(self, number: int) -> tuple:
        # With the number: rows that are not sampled from share one draw.
        return (self._seed, number, *self._rows[number].place)


def numbered(items: Sequence) -> list[str]:
    """A name for each item: its content, and how often that came before."""
    seen, names = Counter(), []
    for item in items:
        names.append(repr((item, seen[item])))
        seen[item] += 1
    return names

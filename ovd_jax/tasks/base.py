"""What a task is: where problems come from, how they are asked, and what pays."""

import dataclasses
from collections.abc import Iterator
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its gold answer; the answer never reaches a teacher."""

    id: str
    question: str
    answer: str
    source: str
    solution: str = ""
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()  # where several are right; `answer` is the first

    @property
    def golds(self) -> tuple[str, ...]:
        """All right answers."""
        return self.answers or (self.answer,)


class Task(Protocol):
    """A source of problems and the judge of answers to them.

    To add one, write a class with these members and name it in `tasks/__init__.py`.
    """

    stop_strings: tuple[str, ...]  # generation ends where one of these appears

    def problems(self, step: int, count: int) -> tuple[Problem, ...]:
        """`count` training problems: a function of the task's seed and `step` only."""

    def held_out(self, count: int) -> tuple[Problem, ...]:
        """`count` evaluation problems, the same on every call, none seen in
        training."""

    def prompt(self, problem: Problem) -> str:
        """The text after which the student writes its solution."""

    def step_ends(self, text: str) -> tuple[int, ...]:
        """Where each reasoning step of `text` ends, as rising character offsets.

        The last one is `len(text)`: every character belongs to exactly one step.
        """

    def extract(self, text: str) -> str | None:
        """The final answer that `text` gives, or None if it gives none."""

    def rewards(self, problems: list[Problem], texts: list[str]) -> list[float]:
        """One reward in [0, 1] for each text, a solution of the problem beside it."""


def steps(text: str, ends: tuple[int, ...]) -> Iterator[str]:
    """The pieces of `text` between consecutive `ends`."""
    start = 0
    for end in ends:
        yield text[start:end]
        start = end

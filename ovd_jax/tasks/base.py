"""The protocol of a task: its problems, prompts and rewards."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its gold answer, which no teacher sees."""

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

    def without_gold(self) -> "Problem":
        """The problem as it is known at test time."""
        return dataclasses.replace(self, answer="", answers=(), solution="")

    @property
    def asked(self) -> str:
        """The question with its choices, as student and teacher get it."""
        lines = [f"({chr(65 + i)}) {choice}" for i, choice in enumerate(self.choices)]
        return "\n".join([self.question, *lines])


@dataclasses.dataclass(frozen=True)
class Grade:
    """The reward of a solution, and its reason."""

    reward: float  # in [0, 1]; 1 is what counts as right
    extracted: str | None  # the final answer found in it
    reason: str  # a code, such as `same_number` or `no_answer`
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)  # the task's


class Task(Protocol):
    """A source of problems that grades their solutions.

    To add one, write a class with these members and name it in `config.task`: see
    examples/own_task.py.
    """

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Generation ends where one of these appears."""
        ...

    @property
    def step_stop(self) -> str:
        """Where whoever writes one step may stop; empty: nowhere."""
        ...

    @property
    def sources(self) -> Mapping[str, str]:
        """Evaluation sets by name, with what `load` takes."""
        ...

    def problems(self, step: int, count: int) -> tuple[Problem, ...]:
        """`count` training problems: a function of the task's seed and `step` only."""
        ...

    def held_out(self, count: int) -> tuple[Problem, ...]:
        """`count` evaluation problems, the same on every call, none seen in
        training."""
        ...

    def load(self, source: str) -> tuple[Problem, ...]:
        """All evaluation problems of a file or hub name, duplicates too."""
        ...

    def prompt(self, problem: Problem) -> str:
        """The text after which the student writes its solution."""
        ...

    def step_ends(self, text: str) -> tuple[int, ...]:
        """The end of each reasoning step of `text`, as increasing character offsets.

        The last one is `len(text)`: every character belongs to exactly one step.
        """
        ...

    def extract(self, text: str) -> str | None:
        """The final answer in `text`; None without one."""
        ...

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """One reward in [0, 1] for each text, a solution of the problem at its
        index."""
        ...

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The same rewards, each with the extracted answer and a reason."""
        ...


class TaskWrapper:
    """Delegates all members to `task`; subclasses change how solutions are graded."""

    def __init__(self, task: Task):
        self._task = task
        self.stop_strings = task.stop_strings
        self.step_stop = task.step_stop
        self.sources = task.sources
        self.problems = task.problems
        self.held_out = task.held_out
        self.load = task.load
        self.prompt = task.prompt
        self.step_ends = task.step_ends
        self.extract = task.extract

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """The task's rewards."""
        return self._task.rewards(list(problems), list(texts))

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The task's grades."""
        return self._task.grade(problems, texts)


def steps(text: str, ends: tuple[int, ...]) -> Iterator[str]:
    """The pieces of `text` between consecutive `ends`."""
    start = 0
    for end in ends:
        yield text[start:end]
        start = end

"""A task whose solutions are worth what a user's own function says."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Grade, Problem, Task


class OwnReward:
    """`task` with the rewards of `reward(problems, texts)`, one in [0, 1] a text."""

    def __init__(self, task: Task, reward: Callable):
        self._task = task
        self._reward = reward
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
        """What the function says. Raises UserError unless it is a number from 0 to 1
        for each text."""
        values = list(self._reward(list(problems), list(texts)))
        if len(values) != len(texts):
            raise UserError(
                f"config.reward gave {len(values)} rewards for {len(texts)} texts; it "
                "must give one for each."
            )
        for value in values:
            try:
                known = math.isfinite(value) and 0 <= value <= 1
            except TypeError:
                known = False
            if not known:
                raise UserError(
                    f"config.reward gave {value!r}; a reward is a number from 0 to 1."
                )
        return [float(value) for value in values]

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The task's grades, with these rewards in the place of its own."""
        grades = self._task.grade(problems, texts)
        return [
            dataclasses.replace(grade, reward=value, reason="own_reward")
            for grade, value in zip(grades, self.rewards(problems, texts), strict=True)
        ]

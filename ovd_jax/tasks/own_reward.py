"""A task with the rewards of a user's own function."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Grade, Problem, Task, TaskWrapper


class OwnReward(TaskWrapper):
    """`task` with the rewards of `reward(problems, texts)`, one in [0, 1] a text."""

    def __init__(self, task: Task, reward: Callable):
        super().__init__(task)
        self._reward = reward

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """The function's rewards. Raises UserError unless it returns a number from 0 to
        1 for each text."""
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

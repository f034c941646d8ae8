"""A task whose problems are put to the student by an environment."""

from collections.abc import Sequence

from ovd_jax.conversation.env import Env
from ovd_jax.conversation.tools import guarded
from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Grade, Problem, Task


class EnvTask:
    """`task` with the prompts of `env`, and turns that end where the environment's
    do."""

    def __init__(self, task: Task, env: Env):
        self._task = task
        self._env = env
        self.stop_strings = tuple(dict.fromkeys((*task.stop_strings, *env.turn_ends)))
        self.step_stop = task.step_stop
        self.sources = task.sources
        self.problems = task.problems
        self.held_out = task.held_out
        self.load = task.load
        self.step_ends = task.step_ends
        self.extract = task.extract

    def prompt(self, problem: Problem) -> str:
        """The environment's first words. Raises EnvError where it raises, and UserError
        where it gives no text."""
        text = guarded(self._env, "reset", problem)
        if not isinstance(text, str):
            kind = type(self._env).__name__
            raise UserError(f"{kind}.reset returned {text!r}; return the prompt.")
        return text

    def rewards(self, problems: list[Problem], texts: list[str]) -> list[float]:
        """The task's rewards, of what the student wrote in all of its turns."""
        return self._task.rewards(problems, texts)

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The task's grades, of the same."""
        return self._task.grade(problems, texts)

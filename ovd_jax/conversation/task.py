"""A task whose problems are put to the student by an environment."""

from ovd_jax.conversation.env import Env
from ovd_jax.conversation.tools import guarded
from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Problem, Task, TaskWrapper


class EnvTask(TaskWrapper):
    """`task` with the prompts of `env`, and turns that end where the environment's
    do."""

    def __init__(self, task: Task, env: Env):
        super().__init__(task)
        self._env = env
        self.prompt = self._reset
        self.stop_strings = tuple(dict.fromkeys((*task.stop_strings, *env.turn_ends)))

    def _reset(self, problem: Problem) -> str:
        """The environment's first words. Raises EnvError where it raises, and UserError
        where it gives no text."""
        text = guarded(self._env, "reset", problem)
        if not isinstance(text, str):
            kind = type(self._env).__name__
            raise UserError(f"{kind}.reset returned {text!r}; return the prompt.")
        return text

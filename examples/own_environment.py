"""An environment of your own: after each line of a solution a calculator says what the
line is worth, and the student goes on. (The embedded models have never read such lines,
so they begin with an accuracy near 0.)

python launch/train.py --config=quickstart \
    --config.env=examples/own_environment.py:Calculator \
    --config.turns.max_observations=4 \
    --config.turns.total_tokens=96 --config.turns.observation_tokens=8 \
    --config.granularity=step --config.replacement=step
"""

from ovd_jax.conversation.calculator import calculate
from ovd_jax.conversation.env import Done, Observation


class Calculator:
    """See `Env` in ovd_jax/conversation/env.py for what each member is for."""

    turn_ends = ("\n",)
    observation_tags = ("=", "\n")

    def __init__(self, config, task, tokenizer):
        self._task = task

    def reset(self, problem):
        """The task asks as it does without a calculator."""
        return self._task.prompt(problem)

    def step(self, text):
        """The value of a line; the answer, or an unfinished line, is the last one."""
        if "#" in text or not text.endswith("\n"):
            return Done()
        try:
            return Observation(calculate(text))
        except ValueError:
            return Observation("", valid=False)

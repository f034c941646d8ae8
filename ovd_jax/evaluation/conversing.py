"""Attempts that are conversations with an environment."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.evaluation.attempts import Attempt, Direct
from ovd_jax.rollout.trajectory import make_conversation
from ovd_jax.sampling.completion import Completion, Stream
from ovd_jax.tasks.base import Problem


class Conversing(Direct):
    """The student in conversations: one whole conversation is the attempt.

    `stream` is the sampler's; tools see the problems without their answers.
    """

    def __init__(self, stream: Stream, *, dialogue: Dialogue, **options):
        converse = functools.partial(dialogue.generate, stream)
        super().__init__(converse, **options)
        self._dialogue = dialogue

    def _told(self, problems: Sequence[Problem]) -> Mapping:
        return {"problems": [problem.without_gold() for problem in problems]}

    def _attempt(self, completion: Completion) -> Attempt:
        attempt = super()._attempt(completion)
        nobody = (False,) * len(completion.tokens)
        turns = make_conversation(
            completion.tokens, completion.logprobs, nobody,
            completion.observed or nobody,
            stopped=completion.stopped, decode=self._dialogue.decode,
        ).turns  # fmt: skip
        written = self._dialogue.graded(turns, attempt.text)
        if written == attempt.text:
            return attempt
        return dataclasses.replace(attempt, written=written)

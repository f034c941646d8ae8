"""Solutions written in one turn: what the student samples and the teacher adds."""

import dataclasses
import functools
from collections.abc import Sequence

from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.teacher_steps import demonstrated_steps, may_go_on, step_end
from ovd_jax.rollout.trajectory import Trajectory, make_trajectory, pieces
from ovd_jax.sampling.completion import Completion, Generate
from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import DemonstrationRequest, Teacher
from ovd_jax.text import Tokenizer, decode, encode, encode_continuation


class SingleTurn:
    """Makes trajectories of what student and teacher write.

    A conversation overrides the methods that make its trajectories otherwise; see
    `ConversationCollector`.
    """

    def __init__(
        self, *, task: Task, teacher: Teacher | None, tokenizer: Tokenizer, rules: Rules
    ):
        self.task = task
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.rules = rules

    def need_teacher(self) -> Teacher:
        """The teacher. Raises ValueError if there is none."""
        if self.teacher is None:
            raise ValueError("What these rules ask for needs a teacher.")
        return self.teacher

    def sampled(
        self, completion: Completion, opening: Trajectory | None = None
    ) -> Trajectory:
        """The trajectory of a completion that the student sampled after `opening`."""
        nobody = (False,) * len(completion.tokens)
        read = completion.observed or nobody
        parts = (completion.tokens, completion.logprobs, nobody, read)
        return self.trajectory(*behind(opening, parts), stopped=completion.stopped)

    def continued(
        self,
        openings: Sequence[Trajectory],
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        generate: Generate,
        *,
        seed: int,
    ) -> list[Trajectory]:
        """Lets the student continue each opening that has not ended."""
        trajectories = [dataclasses.replace(o, stopped=True) for o in openings]
        end = self.tokenizer.eos_token_id
        unfinished = [i for i, o in enumerate(openings) if o.tokens[-1] != end]
        if not unfinished:
            return trajectories
        budget = self.rules.max_new_tokens
        tails = generate(
            [(*prompts[i], *openings[i].tokens) for i in unfinished],
            seed=seed,
            samples=1,
            limits=[budget - len(openings[i].tokens) for i in unfinished],
        )
        for i, (tail,) in zip(unfinished, tails, strict=True):
            trajectories[i] = self.sampled(tail, openings[i])
        return trajectories

    def spliced(
        self, student: Trajectory, kept: int, text: str | None
    ) -> Trajectory | None:
        """The first `kept` tokens of `student`, the teacher's text and an end token;
        None if there is no text or no room for it."""
        if text is None:
            return None
        added = [*self.encode_behind(text, kept), self.tokenizer.eos_token_id]
        if kept + len(added) > self.rules.max_new_tokens:
            return None
        return self.trajectory(*joined(student, kept, added), stopped=True)

    def first_step(self, text: str | None, kept: int) -> list[int]:
        """Tokens of the first step of the teacher's text, with an end token if it is
        also the last; empty if it does not fit behind `kept` tokens."""
        end = step_end(self.task, text)
        if not (text and end):
            return []
        tokens = self.encode_behind(text[:end], kept)
        if end == len(text) and not may_go_on(self.task, text):
            tokens = [*tokens, self.tokenizer.eos_token_id]
        return tokens if kept + len(tokens) < self.rules.max_new_tokens else []

    def demonstrated_steps(
        self, requests: Sequence[DemonstrationRequest], *, seed: int
    ) -> list[str | None]:
        """The teacher's answers to requests for one step each."""
        return demonstrated_steps(self.need_teacher(), self.task, requests, seed=seed)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without special tokens."""
        return encode(self.tokenizer, text)

    def encode_behind(self, text: str, kept: int) -> list[int]:
        """Token ids of `text` behind `kept` tokens of a solution."""
        if not kept:
            return self.encode(text)
        return encode_continuation(self.tokenizer, text)

    def text(self, trajectory: Trajectory, tokens: int) -> str:
        """The text of a trajectory's first `tokens` tokens."""
        return decode(self.tokenizer, trajectory.tokens[:tokens])

    def trajectory(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        from_teacher: Sequence[bool],
        observed: Sequence[bool] = (),
        *,
        stopped: bool,
    ) -> Trajectory:
        """`make_trajectory` with this task and tokenizer; one turn reads nothing."""
        return make_trajectory(
            tokens,
            logprobs,
            from_teacher,
            stopped=stopped,
            decode=functools.partial(decode, self.tokenizer),
            task=self.task,
        )


def behind(opening: Trajectory | None, parts: tuple[tuple, ...]) -> tuple[tuple, ...]:
    """The pieces of `opening`, if there is one, with `parts` after them."""
    if opening is None:
        return parts
    return tuple(a + b for a, b in zip(pieces(opening), parts, strict=True))


def joined(student: Trajectory, kept: int, added: Sequence[int]) -> tuple[tuple, ...]:
    """The pieces of the first `kept` tokens of `student`, then of the teacher's."""
    size = len(added)
    teacher = (tuple(added), (0.0,) * size, (True,) * size, (False,) * size)
    return tuple(a[:kept] + b for a, b in zip(pieces(student), teacher, strict=True))

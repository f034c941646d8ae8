"""Frozen records of a rollout."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import Score


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A solution as the tokens that are trained on; its text is decoded from them."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]  # the sampler's; 0 for the teacher's tokens
    from_teacher: tuple[bool, ...]  # or by a revision: not sampled after the prompt
    text: str  # without special tokens
    step_texts: tuple[str, ...]  # joined they are `text`
    step_ends: tuple[int, ...]  # tokens up to the end of each step
    stopped: bool  # by an end token or stop string; False: cut at the budget
    observed: tuple[bool, ...] = ()  # tokens of observations; empty: none
    turns: tuple[
        str, ...
    ] = ()  # the steps without observations; empty: same as the steps
    trained: bool = True  # False: in its group, but not in the loss

    @property
    def agent_texts(self) -> tuple[str, ...]:
        """The text that student or teacher wrote in each step, without observations."""
        return self.turns or self.step_texts

    @property
    def is_observation(self) -> tuple[bool, ...]:
        """True for each token of an observation."""
        return self.observed or (False,) * len(self.tokens)

    @property
    def written_tokens(self) -> int:
        """The number of tokens that student or teacher wrote."""
        return len(self.tokens) - sum(self.observed)

    @property
    def loss_mask(self) -> tuple[bool, ...]:
        """True for each token in the loss: observations are not, nor is anything if
        `trained` is False."""
        return tuple(self.trained and not read for read in self.is_observation)

    @property
    def student_steps(self) -> tuple[int, ...]:
        """Indices of the steps whose first token is the student's."""
        starts = (0, *self.step_ends[:-1])
        taught = (*self.from_teacher, False)  # a last step may have no token
        return tuple(i for i, start in enumerate(starts) if not taught[start])


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The teacher's scores of a trajectory."""

    steps: tuple[Score, ...]  # empty at granularity `trajectory`
    whole: Score | None  # None at granularity `step`
    value: float  # S, which is compared with the threshold
    answered: bool = True  # False: a score is missing; ignore the rest


UNANSWERED = Verdict((), None, 0.0, answered=False)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """One of the G samples of a problem, before and after the teacher."""

    student: Trajectory  # as sampled; the same as `final` if there was no sample
    verdict: Verdict | None  # on `student`; None if not judged
    accepted: bool
    final: Trajectory  # trained on; the same as `student` unless replaced
    final_verdict: Verdict | None  # on `final`
    reward_before: float
    reward_after: float
    failed_demonstrations: int = 0  # wrong or unfinished ones
    feedback: str = ""  # by the teacher, on a rejected `student`
    revised: bool = False  # `final` is the student's revision

    @property
    def sampled(self) -> bool:
        """True if `student` was sampled."""
        return not any(self.student.from_teacher)

    @property
    def replaced(self) -> bool:
        """True if `final` has tokens of the teacher."""
        return any(self.final.from_teacher)

    @property
    def dropped(self) -> bool:
        """True if the teacher did not answer and `on_failure` is "drop"."""
        verdicts = (self.verdict, self.final_verdict)
        return not all(verdict.answered for verdict in verdicts if verdict)


@dataclasses.dataclass(frozen=True)
class Group:
    """A problem and its G rollouts, without the dropped ones."""

    problem: Problem
    prompt_tokens: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    dropped: tuple[Trajectory, ...] = ()  # without a verdict; they are not trained on


@dataclasses.dataclass(frozen=True)
class Draft:
    """A rollout whose rejected trajectory may still be replaced."""

    problem: Problem
    prompt: tuple[int, ...]  # its tokens
    rollout: Rollout  # `final` is the latest trajectory, `final_verdict` is on it
    accepted: bool  # whether `final` is kept as it is
    round: int = 0  # rewritten steps so far, failures included

    def with_rollout(self, **changes: Any) -> "Draft":
        """The draft with changed fields of its rollout."""
        return dataclasses.replace(
            self, rollout=dataclasses.replace(self.rollout, **changes)
        )


def change_where(
    drafts: Sequence[Draft], condition: Callable, change: Callable
) -> list[Draft]:
    """The drafts, with those that meet the condition changed in one call of
    `change(drafts)`; no call if there are none."""
    chosen = [draft for draft in drafts if condition(draft)]
    changed = iter(change(chosen) if chosen else ())
    return [next(changed) if condition(draft) else draft for draft in drafts]


def make_group(
    problem: Problem, prompt: Sequence[int], rollouts: Sequence[Rollout]
) -> Group:
    """The group of the rollouts with all verdicts; the others are its `dropped`."""
    kept = tuple(rollout for rollout in rollouts if not rollout.dropped)
    dropped = tuple(rollout.student for rollout in rollouts if rollout.dropped)
    return Group(problem, tuple(prompt), kept, dropped)


def pieces(trajectory: Trajectory) -> tuple[tuple, ...]:
    """(tokens, logprobs, from_teacher, is_observation), one entry a token each."""
    t = trajectory
    return t.tokens, t.logprobs, t.from_teacher, t.is_observation


def make_trajectory(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    from_teacher: Sequence[bool],
    *,
    stopped: bool,
    decode: Callable[[Sequence[int]], str],
    task: Task,
) -> Trajectory:
    """Makes a trajectory and divides its text and tokens into the task's steps.

    A token that crosses the end of a step belongs to that step.
    """
    text = decode(tokens)
    ends = task.step_ends(text) or (len(text),)
    starts = (0, *ends[:-1])
    token_ends = [tokens_until(tokens, end, decode) for end in ends[:-1]]
    return Trajectory(
        tokens=tuple(tokens),
        logprobs=tuple(logprobs),
        from_teacher=tuple(from_teacher),
        text=text,
        step_texts=tuple(text[a:b] for a, b in zip(starts, ends, strict=True)),
        step_ends=(*token_ends, len(tokens)),
        stopped=stopped,
    )


def make_conversation(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    from_teacher: Sequence[bool],
    observed: Sequence[bool],
    *,
    stopped: bool,
    decode: Callable[[Sequence[int]], str],
) -> Trajectory:
    """Makes a trajectory whose steps are turns, each with the observation after it.

    Turns end where observations begin, by `observed` and not by text: tags inside a
    document end no turn.
    """
    ends = [
        end
        for end in range(1, len(tokens) + 1)
        if end == len(tokens) or (observed[end - 1] and not observed[end])
    ]
    turns, steps = [], []
    for start, end in itertools.pairwise((0, *ends)):
        here = range(start, end)
        turns.append(decode([tokens[t] for t in here if not observed[t]]))
        read = decode([tokens[t] for t in here if observed[t]])
        steps.append(turns[-1] + read)
    return Trajectory(
        tokens=tuple(tokens),
        logprobs=tuple(logprobs),
        from_teacher=tuple(from_teacher),
        text="".join(steps),
        step_texts=tuple(steps),
        step_ends=tuple(ends),
        stopped=stopped,
        observed=tuple(observed),
        turns=tuple(turns),
    )


def tokens_until(
    tokens: Sequence[int], characters: int, decode: Callable[[Sequence[int]], str]
) -> int:
    """The fewest leading tokens whose text has at least `characters` characters."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        # A partial character decodes to U+FFFD, or several of them by byte fallback.
        if len(decode(tokens[:middle]).rstrip("\ufffd")) >= characters:
            high = middle
        else:
            low = middle + 1
    return low

"""The records of a rollout, all of them frozen."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import Score


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A solution as the tokens that are trained on; text is only ever read off them."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]  # the sampler's; 0 where the teacher wrote the token
    from_teacher: tuple[bool, ...]  # or a revision: not sampled after the prompt
    text: str  # without special tokens
    step_texts: tuple[str, ...]  # their concatenation is `text`
    step_ends: tuple[int, ...]  # tokens up to the end of each step; the last: all
    stopped: bool  # by an end token or stop string; False: cut at the budget
    observed: tuple[bool, ...] = ()  # tokens that were read; empty: none was
    turns: tuple[str, ...] = ()  # the steps without what was read; empty: as the steps
    trained: bool = True  # False: it counts in its group, but not in the loss

    @property
    def written(self) -> tuple[str, ...]:
        """What each step says, without what was read after it."""
        return self.turns or self.step_texts

    @property
    def was_read(self) -> tuple[bool, ...]:
        """`observed`, spelled out."""
        return self.observed or (False,) * len(self.tokens)

    @property
    def written_tokens(self) -> int:
        """How many tokens somebody wrote."""
        return len(self.tokens) - sum(self.observed)

    @property
    def counts(self) -> tuple[bool, ...]:
        """Which tokens are trained on: all that somebody wrote, if any."""
        return tuple(self.trained and not read for read in self.was_read)

    @property
    def own_steps(self) -> tuple[int, ...]:
        """Indices of the steps that the student began."""
        starts = (0, *self.step_ends[:-1])
        taught = (*self.from_teacher, False)  # a last step may have no token
        return tuple(i for i, start in enumerate(starts) if not taught[start])


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the teacher said of one trajectory."""

    steps: tuple[Score, ...]  # empty at granularity `trajectory`
    whole: Score | None  # None at granularity `step`
    value: float  # S, what the threshold is compared with
    answered: bool = True  # False: a score is missing, and nothing else here counts


UNANSWERED = Verdict((), None, 0.0, answered=False)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """One of the G samples of a problem, before and after the teacher."""

    student: Trajectory  # as sampled; `final` itself where the student wrote none
    verdict: Verdict | None  # on `student`; None if the teacher was not asked
    accepted: bool
    final: Trajectory  # what is trained on; `student` itself unless replaced
    final_verdict: Verdict | None  # on `final`
    reward_before: float
    reward_after: float
    failed_demonstrations: int = 0  # wrong or unfinished ones that were thrown away
    feedback: str = ""  # the teacher's, on a rejected `student`
    revised: bool = False  # `final` is what the student made of the feedback

    @property
    def sampled(self) -> bool:
        """Whether there is a trajectory of the student's at all."""
        return not any(self.student.from_teacher)

    @property
    def replaced(self) -> bool:
        """Whether any token of `final` is the teacher's."""
        return any(self.final.from_teacher)

    @property
    def dropped(self) -> bool:
        """Whether a verdict is missing that the policy does not do without."""
        verdicts = (self.verdict, self.final_verdict)
        return not all(verdict.answered for verdict in verdicts if verdict)


@dataclasses.dataclass(frozen=True)
class Group:
    """A problem and its G rollouts, fewer where some were dropped."""

    problem: Problem
    prompt_tokens: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    dropped: tuple[Trajectory, ...] = ()  # unjudged ones: they count nowhere


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
    return t.tokens, t.logprobs, t.from_teacher, t.was_read


def make_trajectory(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    from_teacher: Sequence[bool],
    *,
    stopped: bool,
    decode: Callable[[Sequence[int]], str],
    task: Task,
) -> Trajectory:
    """A trajectory with its text cut into the task's steps, in characters and tokens.

    A token that reaches over a step's end belongs to that step.
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
    """A trajectory whose steps are its turns, each with what was read after it.

    Who wrote a token says where a turn ends, never what it says: tags in a document
    could not.
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
    """The fewest leading tokens whose text has `characters` whole characters or
    more."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        # The first bytes of a character read as one U+FFFD or, by byte fallback, more.
        if len(decode(tokens[:middle]).rstrip("\ufffd")) >= characters:
            high = middle
        else:
            low = middle + 1
    return low

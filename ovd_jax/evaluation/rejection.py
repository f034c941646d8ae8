"""Test-time rejection (the paper's testing threshold, section 4.3).

The teacher scores each step of the student's draft. It replaces the first step under
the threshold, and the student continues from there. The gold answer plays no role: it
is removed from the problems, and no reward is computed.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from ovd_jax.conversation.collect import ConversationCollector
from ovd_jax.evaluation.attempts import Ask, Attempt
from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.trajectory import Group, Trajectory
from ovd_jax.sampling.completion import Generate, Stream
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import (
    DemonstrationRequest,
    RequestKey,
    Score,
    ScoreRequest,
    Teacher,
)
from ovd_jax.text import Tokenizer


class RejectionAtTestTime:
    """A student whose steps a teacher checks while it answers; `rows` at a time.

    Samples, searches, scores and the teacher's own steps of an attempt do not depend on
    the attempts beside it.
    """

    greedy = False  # the teacher's steps are sampled

    def __init__(
        self,
        stream: Stream,
        *,
        task: Task,
        make_teacher: Callable[[], Teacher],  # called when it is first needed
        tokenizer: Tokenizer,
        threshold: float,
        max_replaced_steps: int,
        max_new_tokens: int,
        rows: int,
        identity: Mapping,
        make_collector: "MakeCollector | None" = None,
    ):
        self.identity = identity
        self._make_collector = make_collector or BlindCollector
        self._stream = stream
        self._task = task
        self._make_teacher = make_teacher
        self._tokenizer = tokenizer
        self._rows = rows
        self._rules = Rules(
            samples=1,
            max_new_tokens=max_new_tokens,
            granularity="step",
            step_aggregation="min",
            rejection="score",
            threshold=threshold,
            beta=1.0,
            replacement="step",
            demonstration_tries=1,
            max_replaced_steps=max_replaced_steps,
            feedback="none",
            credit="trajectory",
            only_correct=True,
        )

    def solve(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Attempt]]:
        """Batch by batch; no two in a batch share a prompt, so none shares a score."""
        for places in batches_of_one_seed(asks, self._rows):
            part = [asks[place] for place in places]
            remembering = MemoizedTeacher(self._make_teacher())
            collector = self._make_collector(
                task=self._task,
                teacher=remembering,
                tokenizer=self._tokenizer,
                rules=self._rules,
            )
            groups = collector.collect(
                [ask.problem.without_gold() for ask in part],
                generator(self._stream),
                seed=part[0].batch_seed,
            )
            shared = self._shared_cost(len(part))
            for place, ask, group in zip(places, part, groups, strict=True):
                facts = shared | remembering.cost(ask.problem.asked)
                yield place, attempt(group, facts, collector.graded)

    def _shared_cost(self, attempts: int) -> dict[str, float]:
        """The teacher's tokens since the last call, an equal part for each attempt."""
        spent = self._make_teacher().metrics()
        names = ("teacher_tokens_in", "teacher_tokens_out")
        return {name: (spent.get(name) or 0) / attempts for name in names}


class Blind:
    """Makes a collector give no reward: at test time the answer is unknown."""

    def rewards(
        self, problems: Sequence[Problem], trajectories: Sequence[Trajectory]
    ) -> list[float]:
        """Zeros."""
        return [0.0] * len(trajectories)


class BlindCollector(Blind, Collector):
    """Collects solutions without rewards."""

    def graded(self, trajectory: Trajectory) -> str:
        """What the task grades of a trajectory: all of it."""
        return trajectory.text


class BlindConversationCollector(Blind, ConversationCollector):
    """Of conversations."""

    def graded(self, trajectory: Trajectory) -> str:
        """What the task grades of a conversation."""
        return self.dialogue.graded(trajectory.turns, trajectory.text)


MakeCollector = Callable[..., BlindCollector | BlindConversationCollector]


class MemoizedTeacher:
    """A teacher that scores each step once: an accepted step is not scored again when a
    later one is replaced."""

    def __init__(self, teacher: Teacher):
        self.levels = teacher.levels
        self._teacher = teacher
        self._scores: dict[ScoreRequest, Score | None] = {}
        self._scored = Counter()
        self._demonstrated = Counter()

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[Score | None]:
        """The teacher's scores; it is asked only for new ones. Draws depend on the
        request."""
        new = [r for r in dict.fromkeys(requests) if r not in self._scores]
        draws = by_content(new)
        found = self._teacher.score(new, seed=seed, request_keys=draws) if new else []
        self._scores |= dict(zip(new, found, strict=True))
        self._scored.update(request.question for request in new)
        return [self._scores[request] for request in requests]

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[str | None]:
        """The teacher's demonstrations. Draws depend on the request."""
        self._demonstrated.update(request.question for request in requests)
        draws = by_content(requests)
        return self._teacher.demonstrate(requests, seed=seed, request_keys=draws)

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """Delegates to the teacher."""
        return self._teacher.feedback(requests, seed=seed)

    def metrics(self) -> dict[str, float | None]:
        """Delegates to the teacher."""
        return self._teacher.metrics()

    def cost(self, question: str) -> dict[str, float]:
        """The number of requests about one question."""
        return {
            "teacher_scores": self._scored[question],
            "teacher_demonstrations": self._demonstrated[question],
        }


def by_content(requests: Sequence) -> list[RequestKey]:
    """Request keys made of the content, so that draws do not depend on the batch."""
    return [(derive(0, repr(request)),) for request in requests]


def attempt(group: Group, facts: Mapping[str, float], graded: Callable) -> Attempt:
    """The attempt at one problem; the student's own text if the teacher failed."""
    if not group.rollouts:
        (final,) = group.dropped
        facts = {**facts, "unjudged": 1}
    else:
        final = group.rollouts[0].final
    taught, said = sum(final.from_teacher), graded(final)
    return Attempt(
        text=final.text,
        tokens=len(final.tokens),
        stopped=final.stopped,
        facts={**facts, "tokens_from_teacher": taught},
        written=None if said == final.text else said,
    )


def generator(stream: Stream) -> Generate:
    """Makes the `generate` of a collector from `stream`.

    A draw depends on the seed of the call and on the prompt, not on other prompts or on
    the `draws` asked for.
    """

    def generate(prompts, *, seed: int, samples=1, limits=None, draws=None, **more):
        draws = [
            [derive(seed, digest(prompt), sample) for sample in range(samples)]
            for prompt in prompts
        ]
        asked = {"samples": samples, "limits": limits, "draws": draws, **more}
        rows = stream(prompts, seed=0, **asked)
        found = [completion for _, completion in sorted(rows, key=lambda pair: pair[0])]
        return [found[i : i + samples] for i in range(0, len(found), samples)]

    return generate


def digest(prompt: Sequence[int]) -> str:
    """A hash of a prompt's tokens."""
    return hashlib.sha256(repr(tuple(prompt)).encode()).hexdigest()


def batches_of_one_seed(asks: Sequence[Ask], rows: int) -> Iterator[list[int]]:
    """Indices of asks with one `batch_seed`, at most `rows` at a time, each with a
    prompt of its own."""
    rounds: dict[int, list[int]] = {}
    for place, ask in enumerate(asks):
        rounds.setdefault(ask.batch_seed, []).append(place)
    for places in rounds.values():
        for start in range(0, len(places), rows):
            yield places[start : start + rows]

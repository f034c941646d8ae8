"""One batch of on-policy verbal rejection sampling (section 3.3, Algorithm 1)."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ovd_jax.rollout.feedback import with_feedback
from ovd_jax.rollout.judge import Judge
from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.replace import replace_rejected
from ovd_jax.rollout.single_turn import SingleTurn
from ovd_jax.rollout.trajectory import (
    Draft,
    Group,
    Rollout,
    Trajectory,
    Verdict,
    make_group,
)
from ovd_jax.sampling.completion import Generate, Stream
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import Teacher
from ovd_jax.teacher.prompts import TeacherPrompt
from ovd_jax.text import Tokenizer


class Collector(SingleTurn):
    """Collects groups of rollouts with one student, task and teacher.

    `template` is the teacher's prompt: see `Judge`.
    """

    def __init__(
        self,
        *,
        task: Task,
        teacher: Teacher | None,
        tokenizer: Tokenizer,
        rules: Rules,
        template: TeacherPrompt | None = None,
    ):
        super().__init__(task=task, teacher=teacher, tokenizer=tokenizer, rules=rules)
        self.template = template
        self.judge = Judge(teacher, rules, template)
        shows_documents = getattr(task, "shows_documents", False)
        # Of a problem's prompt, by a task whose prompts show documents.
        self.documents_cut: Callable[[Problem], int] | None = (
            getattr(task, "documents_cut", None) if shows_documents else None
        )
        self.counts = Counter()  # logged by `metrics`, which resets them

    def collect(
        self,
        problems: Sequence[Problem],
        generate: Generate,
        *,
        seed: int,
        stream: Stream | None = None,
    ) -> list[Group]:
        """One group a problem, `rules.samples` rollouts each. Raises TeacherError.

        `generate(prompts, seed=, samples=, limits=)` samples from the student as it is
        now. `stream`, if given, yields the same completions as (row, completion) pairs
        as they finish; a teacher with `begin` then scores each while others are
        sampled. The groups are the same.
        """
        prompts = [self.encode(self.task.prompt(problem)) for problem in problems]
        if documents_cut := self.documents_cut:
            self.counts.update(documents_cut=sum(map(documents_cut, problems)))
        students, rewards, verdicts = self.sample_and_score(
            problems, prompts, generate, seed=seed, stream=stream
        )
        accepted = self.judge.accepts(verdicts, rewards, seed=derive(seed, "accept"))
        drafts = self.drafts(problems, prompts, students, rewards, verdicts, accepted)
        drafts = with_feedback(self, drafts, seed=derive(seed, "feedback"))
        drafts = replace_rejected(self, drafts, generate, seed=derive(seed, "replace"))
        return make_groups(problems, prompts, [draft.rollout for draft in drafts])

    def sample_and_score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        generate: Generate,
        *,
        seed: int,
        stream: Stream | None = None,
    ) -> tuple[list[Trajectory], list[float], list[Verdict | None]]:
        """(trajectories, rewards, verdicts) of the student's samples; arguments as in
        `collect`."""
        problems = self.repeated(problems)
        early = stream if self.judge.asks_scores else None
        scoring = self.judge.scoring(
            problems,
            seed=derive(seed, "score"),
            early=early is not None,
            on_error=self.judge_failed,
        )
        with scoring:
            students = {}
            finished = early or functools.partial(in_order, generate)
            for row, completion in finished(
                prompts, seed=derive(seed, "sample"), samples=self.rules.samples
            ):
                students[row] = self.sampled(completion)
                scoring.add(row, students[row])
            trajectories = [students[row] for row in sorted(students)]
            rewards = self.rewards(problems, trajectories)
            return trajectories, rewards, scoring.verdicts(trajectories)

    def judge_failed(self, error: BaseException) -> None:
        """Hears of an error of the judge that comes while the student is sampled; it is
        raised once the scores are needed."""

    def repeated(self, items: Iterable) -> list:
        """Each item once for every sample, as samples are ordered."""
        return [item for item in items for _ in range(self.rules.samples)]

    def drafts(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        students: Sequence[Trajectory],
        rewards: Sequence[float],
        verdicts: Sequence[Verdict | None],
        accepted: Sequence[bool],
    ) -> list[Draft]:
        """A draft of every sample, before any replacement."""
        samples = zip(
            self.repeated(problems), self.repeated(prompts),
            students, rewards, verdicts, accepted, strict=True,
        )  # fmt: skip
        return [
            Draft(
                problem,
                tuple(prompt),
                Rollout(student, verdict, ok, student, verdict, reward, reward),
                accepted=ok,
            )
            for problem, prompt, student, reward, verdict, ok in samples
        ]

    def rewards(
        self, problems: Sequence[Problem], trajectories: Sequence[Trajectory]
    ) -> list[float]:
        """The task's rewards."""
        texts = ["".join(trajectory.agent_texts) for trajectory in trajectories]
        return self.task.rewards(list(problems), texts)

    def begin(self, step: int) -> None:
        """Announces the next training step; `ConversationCollector` uses it."""

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Metrics of the kind of rollout, beside those of every `RolloutBuffer`, since
        the last call."""
        counts, self.counts = self.counts, Counter()
        names = ("revise_slots_cut",) if self.rules.feedback == "revise" else ()
        names += ("documents_cut",) if self.documents_cut else ()
        return {name: float(counts[name]) for name in names}


def in_order(
    generate: Generate, prompts: Sequence[Sequence[int]], **options: Any
) -> Iterator[tuple]:
    """The completions of `generate` as (row, completion), like a stream."""
    groups = generate(prompts, **options)
    yield from enumerate(itertools.chain.from_iterable(groups))


def make_groups(
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    rollouts: Sequence[Rollout],
) -> list[Group]:
    """One group a problem, of equally many rollouts each; unjudged ones are dropped."""
    size = len(rollouts) // max(len(problems), 1)
    return [
        make_group(problem, prompt, rollouts[p * size : (p + 1) * size])
        for p, (problem, prompt) in enumerate(zip(problems, prompts, strict=True))
    ]

"""One batch of on-policy verbal rejection sampling (section 3.3, Algorithm 1).

sample -> reward and score -> accept or replace -> reward again. The records are made by
pure functions; the only effects are calls of `generate`, the task and the teacher.
"""

import dataclasses
import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.rollout.accept import is_accepted, make_verdict
from ovd_jax.rollout.feedback import with_feedback
from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.replace import replace_rejected
from ovd_jax.rollout.teacher_steps import demonstrated_steps, may_go_on, step_end
from ovd_jax.rollout.trajectory import (
    UNANSWERED,
    Group,
    Rollout,
    Trajectory,
    Verdict,
    make_trajectory,
)
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import (
    DemonstrationRequest,
    Score,
    ScoreRequest,
    Teacher,
)
from ovd_jax.teacher.prompts import TeacherPrompt
from ovd_jax.text import decode


def check_feedback(rules: Rules, wording: TeacherPrompt | None) -> None:
    """Raises UserError where the teacher is to say why, and its prompt does not ask."""
    if rules.feedback != "none" and not (wording and wording.feedback):
        raise UserError(
            f"feedback {rules.feedback!r} needs a teacher.prompt that asks for it, "
            "such as digits."
        )


class Collector:
    """Collects groups for one student, task and teacher; `wording` is how the teacher
    is asked, where it may be for feedback or with the gold answer before it."""

    def __init__(
        self,
        *,
        task: Task,
        teacher: Teacher | None,
        tokenizer,
        rules: Rules,
        wording: TeacherPrompt | None = None,
    ):
        self.task = task
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.rules = rules
        self.wording = wording
        self.counts = Counter()  # of what is logged, since the last `metrics`
        scored = teacher is not None and rules.granularity != "none"
        if scored and rules.threshold > teacher.levels:
            raise UserError(
                f"threshold {rules.threshold} is too high for the scores of this "
                f"teacher, 0 to {teacher.levels - 1}; {teacher.levels} rejects all."
            )
        check_feedback(rules, wording)
        self.rejects_all = scored and rules.rejects_all(teacher.levels)
        # Where none is accepted, scores only matter as rewards.
        self.asks_scores = scored and not (
            self.rejects_all and rules.credit == "trajectory"
        )

    def begin(self, step: int) -> None:
        """Which step of training follows; see `SearchCollector`."""

    def collect(
        self,
        problems: Sequence[Problem],
        generate: Callable,
        *,
        seed: int,
        stream: Callable | None = None,
    ) -> list[Group]:
        """One group a problem. `generate(prompts, seed=, samples=, limits=)` samples
        from the student as it is now; `stream`, if given, does the same but yields
        (row, completion) as they finish, and a teacher with `begin` then scores some
        while others are sampled: the groups are the same. Raises TeacherError."""
        prompts = [self.encode(self.task.prompt(problem)) for problem in problems]
        owners = [p for p in range(len(problems)) for _ in range(self.rules.samples)]
        asked = [problems[p] for p in owners]
        if stream is None or not self.asks_scores:
            judged = self.sampled_then_judged(asked, prompts, generate, seed)
        else:
            judged = self.judged_while_sampled(asked, prompts, stream, seed)
        students, rewards, verdicts = judged
        accepted = self.accept(verdicts, rewards, seed=derive(seed, "accept"))
        drafts = [
            Rollout(student, verdict, ok, student, verdict, reward, reward)
            for student, verdict, ok, reward in zip(
                students, verdicts, accepted, rewards, strict=True
            )
        ]
        drafts = with_feedback(self, drafts, asked, seed=derive(seed, "feedback"))
        rollouts = replace_rejected(
            self, drafts, asked, [prompts[p] for p in owners], generate,
            seed=derive(seed, "replace"),
        )  # fmt: skip
        size = self.rules.samples
        return [
            make_group(problem, prompt, rollouts[p * size : (p + 1) * size])
            for p, (problem, prompt) in enumerate(zip(problems, prompts, strict=True))
        ]

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """What is logged of collected groups beside what all of them have, since the
        last call."""
        counts, self.counts = self.counts, Counter()
        names = ("revise_slots_cut",) if self.rules.feedback == "revise" else ()
        return {name: float(counts[name]) for name in names}

    def sampled_then_judged(self, asked, prompts, generate, seed: int):
        """(trajectories, rewards, verdicts), one after the other."""
        groups = generate(
            prompts, seed=derive(seed, "sample"), samples=self.rules.samples
        )
        students = [self.sampled(each) for group in groups for each in group]
        rewards = self.rewards(asked, students)
        verdicts = self.judge(asked, students, seed=derive(seed, "score"))
        return students, rewards, verdicts

    def judged_while_sampled(self, asked, prompts, stream, seed: int):
        """The same, but each trajectory's questions are out as soon as it is there."""
        students, pending = {}, {}
        try:
            for row, completion in stream(
                prompts, seed=derive(seed, "sample"), samples=self.rules.samples
            ):
                students[row] = self.sampled(completion)
                requests = self.questions(asked[row], students[row])
                pending[row] = self.teacher.begin(
                    requests,
                    seed=derive(seed, "score"),
                    places=[(row, k) for k in range(len(requests))],
                )
            rows = sorted(students)
            trajectories = [students[row] for row in rows]
            rewards = self.rewards(asked, trajectories)
            verdicts = [self.verdict(pending[row].result()) for row in rows]
        finally:
            for answers in pending.values():
                answers.cancel()
        return trajectories, rewards, verdicts

    def sampled(self, completion, opening: Trajectory | None = None) -> Trajectory:
        """The student's own trajectory, or what it made of an `opening`."""
        nobody = (False,) * len(completion.tokens)
        read = completion.observed or nobody
        parts = (completion.tokens, completion.logprobs, nobody, read)
        if opening is not None:
            parts = (a + b for a, b in zip(pieces(opening), parts, strict=True))
        return self.trajectory(*parts, stopped=completion.stopped)

    def continued(
        self, openings: Sequence[Trajectory], problems, prompts, generate, *, seed: int
    ) -> list[Trajectory]:
        """What the student makes of each opening; one that has ended is complete."""
        trajectories = [dataclasses.replace(o, stopped=True) for o in openings]
        end = self.tokenizer.eos_token_id
        going = [i for i, o in enumerate(openings) if o.tokens[-1] != end]
        if not going:
            return trajectories
        budget = self.rules.max_new_tokens
        tails = generate(
            [(*prompts[i], *openings[i].tokens) for i in going],
            seed=seed,
            samples=1,
            limits=[budget - len(openings[i].tokens) for i in going],
        )
        for i, (tail,) in zip(going, tails, strict=True):
            trajectories[i] = self.sampled(tail, openings[i])
        return trajectories

    def first_step(self, text: str | None, kept: int) -> list[int]:
        """Tokens of the first step of the teacher's text, to stand behind `kept`, and
        an end token if it is the last one too; none where it does not fit."""
        end = step_end(self.task, text)
        if not end:
            return []
        tokens = self.encode(text[:end])
        if end == len(text) and not may_go_on(self.task, text):
            tokens = [*tokens, self.tokenizer.eos_token_id]
        return tokens if kept + len(tokens) < self.rules.max_new_tokens else []

    def demonstrated_steps(
        self, requests: Sequence[DemonstrationRequest], *, seed: int
    ) -> list[str | None]:
        """What the teacher writes when it is asked for one step."""
        return demonstrated_steps(self.teacher, self.task, requests, seed=seed)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, trajectory: Trajectory, tokens: int) -> str:
        """What a trajectory's first `tokens` tokens say."""
        return decode(self.tokenizer, trajectory.tokens[:tokens])

    def trajectory(
        self, tokens, logprobs, from_teacher, observed=(), *, stopped
    ) -> Trajectory:
        """`make_trajectory` with this task and tokenizer; here nothing is observed."""

        return make_trajectory(
            tokens,
            logprobs,
            from_teacher,
            stopped=stopped,
            decode=functools.partial(decode, self.tokenizer),
            task=self.task,
        )

    def rewards(self, problems, trajectories) -> list[float]:
        """The task's rewards."""
        texts = ["".join(trajectory.written) for trajectory in trajectories]
        return self.task.rewards(list(problems), texts)

    def judge(self, problems, trajectories, *, seed: int) -> list[Verdict | None]:
        """The teacher's verdict on each trajectory, all asked for in one call; None
        where no score decides about anything."""
        if not self.asks_scores:
            return [None] * len(trajectories)
        asked = [
            self.questions(problem, trajectory)
            for problem, trajectory in zip(problems, trajectories, strict=True)
        ]
        scores = iter(
            self.teacher.score(
                [request for requests in asked for request in requests],
                seed=seed,
                places=[
                    (i, k) for i, each in enumerate(asked) for k in range(len(each))
                ],
            )
        )
        return [self.verdict([next(scores) for _ in each]) for each in asked]

    def questions(self, problem: Problem, trajectory: Trajectory) -> list[ScoreRequest]:
        """`score_requests` by these rules."""
        granularity, reference = self.rules.granularity, self.reference(problem)
        return score_requests(problem, trajectory, granularity, reference)

    def reference(self, problem: Problem) -> str:
        """The gold answer, where the user chose a prompt that shows it to the judge."""
        shown = self.wording is not None and self.wording.shows_reference
        return problem.answer if shown else ""

    def verdict(self, scores: list[Score | None]) -> Verdict:
        """The verdict in the answers to `questions`."""
        if None in scores:
            return UNANSWERED
        whole = None if self.rules.granularity == "step" else scores.pop()
        return make_verdict(scores, whole, aggregation=self.rules.step_aggregation)

    def accept(self, verdicts, rewards, *, seed: int) -> list[bool]:
        """Who is kept; a reward of 1 is what counts as correct. What was not judged is
        not replaced, unless all are."""
        if self.rejects_all:
            return [
                verdict is not None and not verdict.answered for verdict in verdicts
            ]
        rng = random.Random(seed)
        draws = [rng.random() for _ in verdicts]
        return [
            verdict is None
            or not verdict.answered
            or is_accepted(
                verdict.value,
                correct=reward == 1.0,
                rule=self.rules.rejection,
                threshold=self.rules.threshold,
                levels=self.teacher.levels,
                beta=self.rules.beta,
                draw=draw,
            )
            for verdict, reward, draw in zip(verdicts, rewards, draws, strict=True)
        ]


def pieces(trajectory: Trajectory) -> tuple[tuple, ...]:
    """(tokens, logprobs, from_teacher, was_read), as `Collector.trajectory` takes
    them."""
    t = trajectory
    return t.tokens, t.logprobs, t.from_teacher, t.was_read


def make_group(problem: Problem, prompt: Sequence[int], rollouts: Sequence[Rollout]):
    """The group of those rollouts that count."""
    kept = tuple(rollout for rollout in rollouts if not rollout.dropped)
    dropped = tuple(rollout.student for rollout in rollouts if rollout.dropped)
    return Group(problem, tuple(prompt), kept, dropped)


def score_requests(
    problem: Problem, trajectory: Trajectory, granularity: str, reference: str = ""
) -> list[ScoreRequest]:
    """What the teacher is asked of one trajectory: its steps in order, then the
    whole."""
    requests = []
    if granularity != "trajectory":
        previous = ""
        pairs = zip(trajectory.written, trajectory.step_texts, strict=True)
        for written, step in pairs:
            requests.append(
                ScoreRequest(problem.asked, previous, written, False, reference)
            )
            previous += step
    if granularity != "step":
        requests.append(
            ScoreRequest(problem.asked, "", trajectory.text, True, reference)
        )
    return requests

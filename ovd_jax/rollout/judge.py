"""The teacher as a judge: its verdicts on trajectories, and which are accepted."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.rollout.accept import is_accepted, make_verdict
from ovd_jax.rollout.policy import Granularity, Rules
from ovd_jax.rollout.trajectory import UNANSWERED, Trajectory, Verdict
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import Score, ScoreRequest, Teacher
from ovd_jax.teacher.prompts import TeacherPrompt


def check_feedback(rules: Rules, template: TeacherPrompt | None) -> None:
    """Raises UserError if the rules need feedback and the prompt asks for none."""
    if rules.feedback != "none" and not (template and template.feedback):
        raise UserError(
            f"feedback {rules.feedback!r} needs a teacher.prompt that asks for it, "
            "such as digits."
        )


class Judge:
    """Scores trajectories with the teacher and accepts or rejects them by the rules.

    `template` is the teacher's prompt; it may show the gold answer or ask for feedback.
    Raises UserError for a threshold above the teacher's scale.
    """

    def __init__(
        self, teacher: Teacher | None, rules: Rules, template: TeacherPrompt | None
    ):
        scores = teacher is not None and rules.granularity != "none"
        levels = teacher.levels if teacher is not None and scores else 0
        if scores and rules.threshold > levels:
            raise UserError(
                f"threshold {rules.threshold} is too high for the scores of this "
                f"teacher, 0 to {levels - 1}; {levels} rejects all."
            )
        check_feedback(rules, template)
        self._teacher = teacher
        self._levels = levels
        self._rules = rules
        self._shows_reference = template is not None and template.shows_reference
        self.rejects_all = scores and rules.rejects_all(levels)
        # If all are rejected, scores matter only as rewards.
        self.asks_scores = scores and not (
            self.rejects_all and rules.credit == "trajectory"
        )

    def verdicts(
        self,
        problems: Sequence[Problem],
        trajectories: Sequence[Trajectory],
        *,
        seed: int,
    ) -> list[Verdict | None]:
        """One verdict a trajectory, from a single call of the teacher; None for all if
        no decision needs a score. Raises TeacherError."""
        if self._teacher is None or not self.asks_scores:
            return [None] * len(trajectories)
        requests = [
            self.requests(problem, trajectory)
            for problem, trajectory in zip(problems, trajectories, strict=True)
        ]
        scores = iter(
            self._teacher.score(
                [request for row in requests for request in row],
                seed=seed,
                request_keys=[
                    (i, k) for i, row in enumerate(requests) for k in range(len(row))
                ],
            )
        )
        return [self.verdict([next(scores) for _ in row]) for row in requests]

    def scoring(
        self,
        problems: Sequence[Problem],
        *,
        seed: int,
        early: bool,
        on_error: Callable[[BaseException], None],
    ) -> "Scoring":
        """A `Scoring` of one trajectory a problem; if `early`, each is scored as soon
        as it is added, for a teacher with `begin`, and `on_error` hears of a failure
        at once, in any thread."""
        return Scoring(
            self, self._teacher, problems, seed=seed, early=early, on_error=on_error
        )

    def requests(self, problem: Problem, trajectory: Trajectory) -> list[ScoreRequest]:
        """`score_requests` by these rules."""
        granularity = self._rules.granularity
        return score_requests(problem, trajectory, granularity, self.reference(problem))

    def reference(self, problem: Problem) -> str:
        """The gold answer if the user's prompt shows it to the judge, else empty."""
        return problem.answer if self._shows_reference else ""

    def verdict(self, scores: list[Score | None]) -> Verdict:
        """The verdict that the answers to `requests` give."""
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            return UNANSWERED
        whole = None if self._rules.granularity == "step" else known.pop()
        return make_verdict(known, whole, aggregation=self._rules.step_aggregation)

    def accepts(
        self,
        verdicts: Sequence[Verdict | None],
        rewards: Sequence[float],
        *,
        seed: int,
    ) -> list[bool]:
        """Whether each trajectory is kept; a reward of 1 counts as correct.

        An unjudged trajectory is kept, unless the threshold rejects all.
        """
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
                rule=self._rules.rejection,
                threshold=self._rules.threshold,
                levels=self._levels,
                beta=self._rules.beta,
                draw=draw,
            )
            for verdict, reward, draw in zip(verdicts, rewards, draws, strict=True)
        ]


class Scoring:
    """A context that scores trajectories while others are still being sampled.

    If `early`, `add` sends a trajectory's requests to the teacher at once; otherwise
    `verdicts` sends all of them in one call. The verdicts are the same. Leaving the
    context cancels the requests without an answer.
    """

    def __init__(
        self,
        judge: Judge,
        teacher: Teacher | None,
        problems: Sequence[Problem],
        *,
        seed: int,
        early: bool,
        on_error: Callable[[BaseException], None],
    ):
        self._judge = judge
        self._teacher: Any = teacher  # if `early`, it has `begin`
        self._problems = problems
        self._seed = seed
        self._early = early
        self._on_error = on_error
        self._pending = {}

    def add(self, row: int, trajectory: Trajectory) -> None:
        """Starts scoring the trajectory of problem `row`."""
        if not self._early:
            return
        requests = self._judge.requests(self._problems[row], trajectory)
        request_keys = [(row, k) for k in range(len(requests))]
        self._pending[row] = self._teacher.begin(
            requests, seed=self._seed, request_keys=request_keys
        )
        self._pending[row].on_error(self._on_error)

    def verdicts(self, trajectories: Sequence[Trajectory]) -> list[Verdict | None]:
        """One verdict a trajectory, in the order of the problems."""
        if not self._early:
            return self._judge.verdicts(self._problems, trajectories, seed=self._seed)
        return [
            self._judge.verdict(self._pending[row].result())
            for row in sorted(self._pending)
        ]

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(self, *_) -> None:
        for answers in self._pending.values():
            answers.cancel()


def score_requests(
    problem: Problem,
    trajectory: Trajectory,
    granularity: Granularity,
    reference: str = "",
) -> list[ScoreRequest]:
    """The requests about one trajectory: its steps in order, then the whole."""
    requests = []
    if granularity != "trajectory":
        previous = ""
        pairs = zip(trajectory.agent_texts, trajectory.step_texts, strict=True)
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

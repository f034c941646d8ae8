"""Stand-ins for model and teacher, and short ways to make the records of a rollout."""

import contextlib
import dataclasses
import json
import random
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.sampling.completion import Completion
from ovd_jax.tasks.arithmetic import ArithmeticTask, judge_step, judge_steps
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import DemonstrationRequest, Score, ScoreRequest
from ovd_jax.toy.tokenizers import arithmetic_tokenizer

TOKENIZER = arithmetic_tokenizer()
EOS = TOKENIZER.eos_token_id


def encode(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def exact(request: ScoreRequest, rng=None) -> int:
    """What a perfect judge of arithmetic says."""
    if request.whole:
        return min(judge_steps(request.question, request.text.splitlines()))
    before = [request.question, *request.previous.splitlines()][-1]
    return judge_step(before, request.text)


class FakeTeacher:
    """Scores and demonstrates by functions of (request, rng); `rng` is a function of
    the seed and the request's place. Keeps what it was asked, call by call."""

    levels = 10

    def __init__(
        self, score: Callable = exact, demonstrate: Callable = lambda request, rng: None
    ):
        self._score, self._demonstrate = score, demonstrate
        self.scored: list[list[ScoreRequest]] = []
        self.demonstrated: list[list[DemonstrationRequest]] = []

    def score(self, requests, *, seed: int, request_keys=None) -> list[Score]:
        self.scored.append(list(requests))
        values = [
            self._score(request, random.Random(f"{seed}-{place}"))
            for place, request in zip(
                request_keys or range(len(requests)), requests, strict=True
            )
        ]
        return [None if value is None else score_of(value) for value in values]

    def demonstrate(
        self, requests, *, seed: int, request_keys=None
    ) -> list[str | None]:
        self.demonstrated.append(list(requests))
        return [
            self._demonstrate(request, random.Random(f"{seed}-{place}"))
            for place, request in zip(
                request_keys or range(len(requests)), requests, strict=True
            )
        ]


class FakeStudent:
    """A `generate` that goes on from a text with `write(text, sample, rng)` and an end
    token, cut at the limit. The i-th token it writes has log-probability -(i + 1)."""

    def __init__(self, write: Callable, max_new_tokens: int = 40):
        self._write, self._max = write, max_new_tokens
        self.prompts: list[list[tuple[int, ...]]] = []
        self.limits: list[Sequence[int] | None] = []

    def __call__(self, prompts, *, seed: int, samples: int = 1, limits=None):
        self.prompts.append([tuple(prompt) for prompt in prompts])
        self.limits.append(limits)
        return [
            [
                self._complete(
                    TOKENIZER.decode(prompt), g, self._max if limits is None else limit,
                    random.Random(f"{seed}-{p}-{g}"),
                )
                for g in range(samples)
            ]
            for p, (prompt, limit) in enumerate(
                zip(prompts, limits or [None] * len(prompts), strict=True)
            )
        ]  # fmt: skip

    def _complete(self, text, sample, limit, rng) -> Completion:
        tokens = (*encode(self._write(text, sample, rng)), EOS)
        kept = tokens[:limit]
        logprobs = tuple(-float(i + 1) for i in range(len(kept)))
        return Completion(kept, logprobs, len(kept) == len(tokens))


def rules(**changes) -> Rules:
    fields = {
        "samples": 2,
        "max_new_tokens": 40,
        "granularity": "step",
        "step_aggregation": "min",
        "rejection": "score",
        "threshold": 7,
        "beta": 2.0,
        "replacement": "trajectory",
        "demonstration_tries": 3,
        "max_replaced_steps": 3,
        "feedback": "none",
        "credit": "trajectory",
        "only_correct": True,
    }
    return Rules(**fields | changes)


def collector(teacher: FakeTeacher, **changes) -> Collector:
    return Collector(
        task=ArithmeticTask(),
        teacher=teacher,
        tokenizer=TOKENIZER,
        rules=rules(**changes),
    )


def problem(question: str, answer: str) -> Problem:
    return Problem(id=question, question=question, answer=answer, source="hand")


def score_of(value: float, *, levels: int = 10, outside: float = 0.0) -> Score:
    probs = tuple(float(level == int(value)) for level in range(levels))
    return Score(float(value), probs, outside)


def verdict(*steps: float, whole: float | None = None, value: float = 0.0) -> Verdict:
    return Verdict(
        tuple(score_of(step) for step in steps),
        None if whole is None else score_of(whole),
        value,
    )


def trajectory(*sizes: int, teacher: Sequence[int] = (), first: int = 1, stopped=True):
    """Steps of `sizes` tokens, numbered from `first`; those at the indices in `teacher`
    are the teacher's. Token t of the student's has log-probability -t / 10."""
    owners = [step for step, size in enumerate(sizes) for _ in range(size)]
    tokens = tuple(range(first, first + len(owners)))
    from_teacher = tuple(step in teacher for step in owners)
    steps = tuple(f"step {step}\n" for step in range(len(sizes)))
    return Trajectory(
        tokens=tokens,
        logprobs=tuple(
            0.0 if theirs else -token / 10
            for token, theirs in zip(tokens, from_teacher, strict=True)
        ),
        from_teacher=from_teacher,
        text="".join(steps),
        step_texts=steps,
        step_ends=tuple(sum(sizes[: i + 1]) for i in range(len(sizes))),
        stopped=stopped,
    )


def kept(student: Trajectory, reward: float, judged: Verdict | None = None, **changes):
    """A rollout whose student trajectory stays."""
    judged = judged or verdict()
    fields = {
        "student": student,
        "verdict": judged,
        "accepted": True,
        "final": student,
        "final_verdict": judged,
        "reward_before": reward,
        "reward_after": reward,
    }
    return Rollout(**fields | changes)


def swapped(student: Trajectory, final: Trajectory, *, before=0.0, after=1.0, **more):
    """A rollout whose trajectory was replaced."""
    changes = {
        "accepted": False,
        "final": final,
        "final_verdict": None,
        "reward_after": after,
    }
    return kept(student, before, **changes | more)


def group(*rollouts: Rollout, prompt: Sequence[int] = (7, 8)) -> Group:
    return Group(problem("3+4", "7"), tuple(prompt), tuple(rollouts))


def random_groups(*, read=True):
    """Completions of all lengths, most of them shorter than the longest; with `read`,
    something was read in the middle of some, and one is not trained on."""
    rng = np.random.default_rng(0)

    def draw(count):
        return tuple(rng.integers(1, 26, count).tolist())

    def rollout(size):
        made = dataclasses.replace(trajectory(size), tokens=draw(size))
        if read:
            observed = tuple(1 < t < size - 2 for t in range(size))
            made = dataclasses.replace(made, observed=observed, trained=size != 7)
        return kept(made, 0.0)

    sizes = [(3, [5, 2, 9, 1]), (7, [3, 3, 3]), (1, [12, 7, 1, 2, 4])]
    groups = [group(*map(rollout, s), prompt=draw(p)) for p, s in sizes]
    return groups, [[[rng.normal()] for _ in g.rollouts] for g in groups]


@contextlib.contextmanager
def served(handler: type[BaseHTTPRequestHandler]):
    """The URL of a server with this handler."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()


def write_rows(path: Path, rows) -> Path:
    """Writes a JSONL file; returns its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path

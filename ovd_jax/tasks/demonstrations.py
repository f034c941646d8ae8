"""Examples for supervised fine-tuning: pieces of text, each with a weight in the
loss."""

import dataclasses
import random
from collections.abc import Callable

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl
from ovd_jax.tasks.arithmetic import ANSWER, ArithmeticTask
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.corruption import judged_solution
from ovd_jax.teacher.prompts import JUDGE_STEP, JUDGE_TRAJECTORY

_INCOMPLETE = 4  # the best score of a solution that never gives its answer

Piece = tuple[str, float]  # text, and its weight in the loss; 0: only read


@dataclasses.dataclass(frozen=True)
class Branch:
    """Text that goes on after the first `after` pieces, seen by nothing else."""

    after: int
    pieces: tuple[Piece, ...]


@dataclasses.dataclass(frozen=True)
class Example:
    """One training text; `ends` tells whether an end-of-sequence token follows."""

    pieces: tuple[Piece, ...]
    ends: bool = True
    branches: tuple[Branch, ...] = ()


def solution(task: ArithmeticTask, problem: Problem) -> Example:
    """A problem and its model solution, the latter trained on."""
    return Example(((task.prompt(problem), 0.0), (problem.solution, 1.0)))


def judgement(task: ArithmeticTask, problem: Problem, rng: random.Random) -> Example:
    """A solution with slips, and on it the score of each step and of the whole.

    The scores hang on the solution as branches, so that one reading of it teaches all
    of them. Its right steps are trained on as well.
    """
    lines, scores = judged_solution(problem.question, rng)
    steps = [
        (joined([line]), float(score == 9))
        for line, score in zip(lines, scores, strict=True)
    ]
    branches = [
        Branch(after, ((JUDGE_STEP, 0.0), (str(score), 1.0)))
        for after, score in enumerate(scores, 2)
    ]
    whole = str(trajectory_score(lines, scores))
    branches.append(Branch(len(lines) + 1, ((JUDGE_TRAJECTORY, 0.0), (whole, 1.0))))
    return Example(
        ((task.prompt(problem), 0.0), *steps),
        ends=trajectory_score(lines, scores) == 9,
        branches=tuple(branches),
    )


def joined(lines: list[str]) -> str:
    """Lines as a student writes them: nothing follows the answer."""
    return "".join(x if x.startswith(ANSWER) else x + "\n" for x in lines)


def trajectory_score(lines: list[str], scores: list[int]) -> int:
    """The exact score of a whole solution: its worst step's, lower without an
    answer."""
    answered = bool(lines) and lines[-1].startswith(ANSWER)
    return min([*scores, 9 if answered else _INCOMPLETE])


def arithmetic_examples(
    task: ArithmeticTask, *, judged_share: float
) -> Callable[[int, int], list[Example]]:
    """`(step, count) -> examples`, a share of them judgements, the rest solutions."""

    def draw(step: int, count: int) -> list[Example]:
        rng = random.Random(f"sft-{task.seed}-{step}")
        return [
            judgement(task, problem, rng)
            if rng.random() < judged_share
            else solution(task, problem)
            for problem in task.problems(step, count)
        ]

    return draw


def file_examples(path: str, *, seed: int) -> Callable[[int, int], list[Example]]:
    """Examples from JSONL rows with `prompt` and `completion`, in a new order every
    epoch. Raises UserError naming a row without them."""
    rows = []
    for where, row in read_jsonl(path):
        texts = row.get("prompt"), row.get("completion")
        if not all(isinstance(text, str) for text in texts) or not texts[1]:
            raise UserError(f"{where} needs the texts `prompt` and `completion`.")
        rows.append(Example(((texts[0], 0.0), (texts[1], 1.0))))
    if not rows:
        raise UserError(f"{path} holds no examples.")

    def draw(step: int, count: int) -> list[Example]:
        picked = []
        for position in range(step * count, (step + 1) * count):
            epoch, index = divmod(position, len(rows))
            order = list(range(len(rows)))
            random.Random(f"{seed}-{epoch}").shuffle(order)
            picked.append(rows[order[index]])
        return picked

    return draw

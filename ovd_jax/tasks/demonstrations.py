"""Examples for supervised fine-tuning: pieces of text, each with a weight in the
loss."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

from ovd_jax.tasks.arithmetic import ANSWER, ArithmeticTask
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.corruption import judged_solution
from ovd_jax.teacher.prompts import JUDGE_STEP, JUDGE_TRAJECTORY

_SCORE_WEIGHT = 3.0  # one token among dozens; unweighted it is learned late
_INCOMPLETE = 4  # the best score of a solution that never gives its answer


@dataclasses.dataclass(frozen=True)
class Example:
    """One training text; `ends` tells whether an end-of-sequence token follows."""

    pieces: tuple[tuple[str, float], ...]  # (text, weight in the loss; 0: only read)
    ends: bool = True


def solution(task: ArithmeticTask, problem: Problem) -> Example:
    """A problem and its model solution, the latter trained on."""
    return Example(((task.prompt(problem), 0.0), (problem.solution, 1.0)))


def judgement(task: ArithmeticTask, problem: Problem, rng: random.Random) -> Example:
    """A solution up to some step, with the score of that step or of all of it.

    The right steps before the first slip are trained on as well: reading them costs the
    same.
    """
    lines, scores = judged_solution(problem.question, rng)
    whole = rng.random() < 0.3
    slips = [i for i, score in enumerate(scores) if score < 9]
    count = len(lines) if whole else rng.randint(1, len(lines))
    if slips and not whole and rng.random() < 0.5:
        count = rng.choice(slips) + 1
    right = min([*slips, count])  # lines before the first slip
    score = trajectory_score(lines, scores) if whole else scores[count - 1]
    return Example(
        (
            (task.prompt(problem), 0.0),
            (joined(lines[:right]), 1.0),
            (joined(lines[right:count]), 0.0),
            (JUDGE_TRAJECTORY if whole else JUDGE_STEP, 0.0),
            (str(score), _SCORE_WEIGHT),
        ),
        ends=False,
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
    epoch. Raises ValueError naming a row without them."""
    rows = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row.get("prompt"), str) or not row.get("completion"):
            raise ValueError(
                f"{path}:{number} needs the texts `prompt` and `completion`."
            )
        rows.append(Example(((row["prompt"], 0.0), (row["completion"], 1.0))))
    if not rows:
        raise ValueError(f"{path} holds no examples.")

    def draw(step: int, count: int) -> list[Example]:
        picked = []
        for position in range(step * count, (step + 1) * count):
            epoch, index = divmod(position, len(rows))
            order = list(range(len(rows)))
            random.Random(f"{seed}-{epoch}").shuffle(order)
            picked.append(rows[order[index]])
        return picked

    return draw

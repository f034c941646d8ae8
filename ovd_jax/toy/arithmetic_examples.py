"""Arithmetic solutions, and judgements of them, as examples for fine-tuning."""

import random
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl
from ovd_jax.tasks.arithmetic import ANSWER, ArithmeticTask
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.data.examples import Branch, Example, is_list_of
from ovd_jax.teacher.prompts import JUDGE_STEP, JUDGE_TRAJECTORY
from ovd_jax.toy.corruption import judged_solution

_INCOMPLETE = 4  # the best score of a solution that never gives its answer


def solution(task: ArithmeticTask, problem: Problem) -> Example:
    """A problem and its model solution, the latter trained on."""
    return Example(((task.prompt(problem), 0.0), (problem.solution, 1.0)))


def judgement(task: ArithmeticTask, problem: Problem, rng: random.Random) -> Example:
    """A solution with slips, with the exact score of each step and of the whole; its
    best steps are trained on as well."""
    lines, scores = judged_solution(problem.question, rng)
    return judged(task.prompt(problem), lines, scores, imitated=True)


def judged(
    prompt: str, lines: Sequence[str], scores: Sequence[int], *, imitated: bool
) -> Example:
    """A solution, and on it the score of each step and of the whole.

    The scores hang on the solution as branches, so that one reading of it teaches all
    of them. If `imitated`, its steps of score 9 are trained on as well.
    """
    steps = [
        (joined([line]), float(imitated and score == 9))
        for line, score in zip(lines, scores, strict=True)
    ]
    branches = [
        Branch(after, ((JUDGE_STEP, 0.0), (str(score), 1.0)))
        for after, score in enumerate(scores, 2)
    ]
    whole = trajectory_score(lines, scores)
    branches.append(
        Branch(len(lines) + 1, ((JUDGE_TRAJECTORY, 0.0), (str(whole), 1.0)))
    )
    return Example(
        ((prompt, 0.0), *steps), ends=imitated and whole == 9, branches=tuple(branches)
    )


def joined(lines: Sequence[str]) -> str:
    """Lines as a student writes them: nothing follows the answer."""
    return "".join(x if x.startswith(ANSWER) else x + "\n" for x in lines)


def trajectory_score(lines: Sequence[str], scores: Sequence[int]) -> int:
    """The exact score of a whole solution: its worst step's, lower without an
    answer."""
    answered = bool(lines) and lines[-1].startswith(ANSWER)
    return min([*scores, 9 if answered else _INCOMPLETE])


def arithmetic_examples(
    task: ArithmeticTask, *, judged_share: float, judged_data: str = ""
) -> Callable[[int, int], list[Example]]:
    """`(step, count) -> examples`, a share of them judgements, the rest solutions.

    Judgements are of the rows in the file `judged_data`, which
    launch/make_judge_data.py writes, or of made-up slips if it is empty.
    """
    rows = read_judged(judged_data, task) if judged_data else []

    def judge(problem: Problem, rng: random.Random) -> Example:
        return rng.choice(rows) if rows else judgement(task, problem, rng)

    def draw(step: int, count: int) -> list[Example]:
        rng = random.Random(f"sft-{task.seed}-{step}")
        return [
            judge(problem, rng)
            if rng.random() < judged_share
            else solution(task, problem)
            for problem in task.problems(step, count)
        ]

    return draw


def read_judged(path: str, task: ArithmeticTask) -> list[Example]:
    """Judgements from JSONL rows with `question`, `lines` and their `scores`, 0 to 9.
    Raises UserError naming a row that is not so."""
    examples = []
    for where, row in read_jsonl(path):
        question, lines, scores = (row.get(x) for x in ("question", "lines", "scores"))
        if not (
            isinstance(question, str)
            and is_list_of(lines, str)
            and is_list_of(scores, int)
            and len(lines) == len(scores)
            and all(0 <= score <= 9 for score in scores)
        ):
            raise UserError(
                f"{where} is no row with question, lines and a score 0 to 9 of each; "
                "launch/make_judge_data.py writes such rows."
            )
        examples.append(judged(task.prompt_of(question), lines, scores, imitated=False))
    if not examples:
        raise UserError(f"{path} holds no judged solutions.")
    return examples

"""Solutions whose first wrong step is known, to measure a judge.

Rows are those of ProcessBench (arXiv:2412.06559): a solution in steps and the index of
its first wrong one. Later steps are neither right nor wrong.
"""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl
from ovd_jax.seeds import derive
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.base import Task
from ovd_jax.toy.arithmetic_examples import joined
from ovd_jax.toy.corruption import judged_solution

WRONG = 2  # exact scores of arithmetic steps up to this one are of wrong steps


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solution whose first wrong step is known."""

    id: str
    question: str
    steps: tuple[str, ...]  # as written: joined they are the solution
    first_error: int  # index of the first wrong step; -1: all are right

    @property
    def known(self) -> int:
        """The number of steps that are known to be right or wrong."""
        return self.first_error + 1 or len(self.steps)


def load_solutions(
    data: str, task: Task | None, *, count: int, seed: int
) -> list[Solution]:
    """`count` solutions: a seeded sample of the comma-separated files `data`, equally
    many of each (0: all rows); without a file, of the arithmetic task."""
    rng = random.Random(derive(seed, "audit"))
    if not data:
        return list(arithmetic_solutions(task, count, rng))
    paths = [path.strip() for path in data.split(",")]
    chosen = []
    for path in paths:
        rows = list(read_solutions(Path(path)))
        share = -(-count // len(paths)) or len(rows)
        chosen += rng.sample(rows, min(len(rows), share))
    return chosen[: count or None]


def arithmetic_solutions(
    task: Task | None, count: int, rng: random.Random
) -> Iterator[Solution]:
    """Solutions of held-out problems with some wrong lines, graded exactly."""
    if not isinstance(task, ArithmeticTask):
        raise UserError("Set config.data to files of judged steps for this task.")
    if not count:
        raise UserError("eval_problems 0 takes all rows of config.data: set it, too.")
    for problem in task.held_out(count):
        lines, scores = judged_solution(problem.question, rng)
        wrong = (index for index, score in enumerate(scores) if score <= WRONG)
        steps = tuple(joined([line]) for line in lines)
        yield Solution(problem.id, problem.question, steps, next(wrong, -1))


def read_solutions(path: Path) -> Iterator[Solution]:
    """Rows with `question`, `steps` and `first_error` (or `error_steps`, all wrong
    ones). Raises UserError for any other row."""
    for number, (where, row) in enumerate(read_jsonl(path), 1):
        try:
            steps = tuple(f"{step.strip()}\n\n" for step in row["steps"])
            first = (
                row["first_error"]
                if "first_error" in row
                else min(row["error_steps"], default=-1)
            )
            known = isinstance(first, int) and -1 <= first < len(steps)
            question = row["question"] + ""
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{where} is no row with question, steps and first_error ({error!r})."
            ) from None
        if not steps or not known:
            raise UserError(f"{where}: first_error {first!r} is no step's index or -1.")
        yield Solution(str(row.get("id", number)), question, steps, first)

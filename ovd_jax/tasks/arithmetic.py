"""Nested arithmetic, solved one operation a line: a task with an exact step checker.

    (3+4)*2-(8-5)  is asked as  ((3+4)*2)-(8-5)=  and solved as
    (7*2)-(8-5)
    14-(8-5)
    14-3
    #### 11

Problems are drawn from a seed; a hash of the expression decides the split, so training
and held-out problems can never overlap.
"""

import dataclasses
import hashlib
import itertools
import random
import re
import types
from collections.abc import Iterator, Mapping, Sequence

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Grade, Problem
from ovd_jax.text import Tokenizer, plain_prompt

ANSWER = "#### "
_HELD_OUT_SHARE = 0.1
_MOST_MISSES = 1000  # by chance once in 10^45 draws
_INNERMOST = re.compile(r"\((\d+)([-+*])(\d+)\)|^(\d+)([-+*])(\d+)$")
_TOUCHING = re.compile(r"\d\(|\)[\d(]")  # an operator is missing
_MAX_LINE = 200  # characters; a longer line is no step of this task


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """Sizes of the drawn expressions. Raises UserError if none fits."""

    min_operations: int = 2
    max_operations: int = 4
    max_operand: int = 9
    max_value: int = 30  # no intermediate result leaves 0..max_value

    def __post_init__(self):
        if self.min_operations > self.max_operations:
            raise UserError(
                f"arithmetic.min_operations {self.min_operations} is more than "
                f"arithmetic.max_operations, {self.max_operations}."
            )


class ArithmeticTask:
    """Draws expressions, checks answers, and labels single steps exactly."""

    stop_strings = ()
    step_stop = "\n"
    sources: Mapping[str, str] = types.MappingProxyType({})

    def __init__(
        self,
        *,
        difficulty: Difficulty = Difficulty(),
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ):
        self.difficulty = difficulty
        self.seed = seed
        self._tokenizer = tokenizer

    def problems(self, step: int, count: int) -> tuple[Problem, ...]:
        """`count` training problems of `step`, none of them in the held-out split."""
        return self._draw(f"train-{self.seed}-{step}", count, held_out=False)

    def held_out(self, count: int) -> tuple[Problem, ...]:
        """The first `count` held-out problems; they do not depend on the seed."""
        return self._draw("held-out", count, held_out=True)

    def load(self, source: str) -> tuple[Problem, ...]:
        """Raises UserError: the problems of this task are drawn."""
        raise UserError(
            f"The task arithmetic reads no data, so not {source!r}; leave config.data "
            "and config.eval_sets empty, or set config.task."
        )

    def prompt(self, problem: Problem) -> str:
        """The expression and an equals sign, on a line of its own."""
        return self.prompt_of(problem.question)

    def prompt_of(self, question: str) -> str:
        """The prompt of an expression."""
        return plain_prompt(self._tokenizer, question + "=\n")

    def step_ends(self, text: str) -> tuple[int, ...]:
        """Every line is a step."""
        ends = [match.end() for match in re.finditer(r"\n", text)]
        return tuple(ends if text.endswith("\n") or not text else [*ends, len(text)])

    def extract(self, text: str) -> str | None:
        """The number after the last answer mark."""
        match = re.match(r"\s*(\d{1,9})\s*$", text.rpartition(ANSWER)[2])
        return str(int(match[1])) if match and ANSWER in text else None

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """1 for the right final number, else 0."""
        return [grade.reward for grade in self.grade(problems, texts)]

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The rewards, with the final number of each text."""
        grades = []
        for problem, text in zip(problems, texts, strict=True):
            found = self.extract(text)
            right = found == problem.answer
            reason = "no_answer" if found is None else "other_number"
            grades.append(
                Grade(float(right), found, "same_number" if right else reason)
            )
        return grades

    def _draw(self, stream: str, count: int, held_out: bool) -> tuple[Problem, ...]:
        rng = random.Random(stream)
        problems = []
        misses = 0  # in a row
        while len(problems) < count:
            if misses == _MOST_MISSES:
                kind = "held-out" if held_out else "training"
                raise UserError(
                    f"{self.difficulty} has hardly any {kind} problems: "
                    "set arithmetic.max_operations or arithmetic.max_operand to more."
                )
            misses += 1
            operations = rng.randint(
                self.difficulty.min_operations, self.difficulty.max_operations
            )
            text, value = _expression(rng, operations, self.difficulty)
            if is_held_out(text) == held_out:
                misses = 0
                lines = tuple(solve(text))
                problems.append(
                    Problem(
                        id=f"arithmetic-{stream}-{len(problems)}",
                        question=text,
                        answer=str(value),
                        source="arithmetic",
                        solution="\n".join(lines),
                    )
                )
        return tuple(problems)


def is_held_out(expression: str) -> bool:
    """True if `expression` belongs to the held-out split, by its hash only."""
    digest = hashlib.blake2b(expression.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < _HELD_OUT_SHARE * 2**64


def _expression(rng: random.Random, operations: int, difficulty: Difficulty):
    """A random expression without outer brackets, and its value."""
    if operations == 0:
        value = rng.randint(1, difficulty.max_operand)
        return str(value), value
    while True:
        split = rng.randrange(operations)
        sides = (
            _expression(rng, split, difficulty),
            _expression(rng, operations - 1 - split, difficulty),
        )
        operator = rng.choice("+-*")
        value = apply(operator, sides[0][1], sides[1][1])
        if 0 <= value <= difficulty.max_value:
            left, right = (s if s.isdigit() else f"({s})" for s, _ in sides)
            return f"{left}{operator}{right}", value


def apply(operator: str, left: int, right: int) -> int:
    """`left operator right`."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def solve(expression: str) -> Iterator[str]:
    """The model solution's lines: the leftmost innermost operation falls first."""
    while match := _INNERMOST.search(expression):
        expression = reduce_at(expression, match)
        yield expression if not expression.isdigit() else ANSWER + expression


def reduce_at(expression: str, match: re.Match) -> str:
    """`expression` with the matched operation replaced by its value."""
    left, operator, right = (group for group in match.groups() if group is not None)
    value = apply(operator, int(left), int(right))
    return expression[: match.start()] + str(value) + expression[match.end() :]


def reductions(expression: str) -> Iterator[str]:
    """`expression` after each of its ready operations."""
    expression = expression.strip().removeprefix(ANSWER.strip()).strip()
    yield from (reduce_at(expression, m) for m in _INNERMOST.finditer(expression))
    if expression.isdigit():
        yield expression  # only the answer mark is missing


def evaluate(line: str) -> tuple[int, int] | None:
    """(value, operations left) of a line; None if it is not an expression."""
    expression = line.strip().removeprefix(ANSWER.strip()).strip()
    if len(expression) > _MAX_LINE or not re.fullmatch(r"[-+*()\d]+", expression):
        return None
    if _TOUCHING.search(expression):
        return None
    operations = 0
    while match := _INNERMOST.search(expression):
        expression = reduce_at(expression, match)
        operations += 1
        if not re.fullmatch(r"[-+*()\d]{1,200}", expression) or "(-" in expression:
            return None
    return (int(expression), operations) if expression.isdigit() else None


def judge_step(before: str, step: str) -> int:
    """The exact score 0-9 of `step` after the line `before` (rubric of appendix A.4).

    9: one operation carried out rightly; 7: right, but several at once; 5: the value is
    kept but nothing is done; 2 or 1: a value off by at most two or by more; 0: no
    expression at all.
    """
    old, new = evaluate(before), evaluate(step)
    if old is None or new is None:
        return 0
    (old_value, old_left), (value, left) = old, new
    if value != old_value:
        return 2 if abs(value - old_value) <= 2 else 1
    marked_answer = ANSWER in step and ANSWER not in before
    if left >= old_left and not (marked_answer and left == 0):
        return 5
    return 9 if old_left - left <= 1 else 7


def judge_steps(question: str, lines: list[str]) -> list[int]:
    """The exact score of every line, given the line before it."""
    pairs = itertools.pairwise([question, *lines])
    return [judge_step(before, line) for before, line in pairs]

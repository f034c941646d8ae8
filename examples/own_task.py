"""A task of your own: sums of three digits, one addition a line.

python launch/train.py --config=quickstart --config.task=examples/own_task.py:Sums
"""

import random

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Grade, Problem


class Sums:
    """See `Task` in ovd_jax/tasks/base.py for what each member is for."""

    stop_strings = ()
    step_stop = "\n"
    sources = {}  # noqa: RUF012 as the protocol has it

    def __init__(self, config, tokenizer):
        self._seed = config.seed

    def problems(self, step, count):
        """Drawn from seed and step alone, so that a resumed run sees the same."""
        return self._draw(f"train {self._seed} {step}", count)

    def held_out(self, count):
        """The same on every call."""
        return self._draw("held out", count)

    def load(self, source):
        """Named sets: there are none."""
        raise UserError(f"sums are drawn, so not {source!r}; leave eval_sets empty.")

    def prompt(self, problem):
        """What the student goes on from."""
        return f"{problem.question}=\n"

    def step_ends(self, text):
        """Every line is a step."""
        lines = text.splitlines(keepends=True)
        return tuple(sum(map(len, lines[: i + 1])) for i in range(len(lines)))

    def extract(self, text):
        """What follows the last answer mark."""
        answer = text.rpartition("#### ")[2].strip()
        return answer if "#### " in text and answer.isdecimal() else None

    def rewards(self, problems, texts):
        """1 for the right sum."""
        return [grade.reward for grade in self.grade(problems, texts)]

    def grade(self, problems, texts):
        """The same, with the sum that was found."""
        found = [self.extract(text) for text in texts]
        return [
            Grade(float(answer == problem.answer), answer, "sum" if answer else "none")
            for problem, answer in zip(problems, found, strict=True)
        ]

    def _draw(self, stream, count):
        rng = random.Random(stream)
        problems = []
        for number in range(count):
            a, b, c = (rng.randint(1, 9) for _ in range(3))
            question, sums = f"({a}+{b})+{c}", (f"{a + b}+{c}", f"#### {a + b + c}")
            problems.append(
                Problem(
                    id=f"{stream} {number}",
                    question=question,
                    answer=str(a + b + c),
                    source="sums",
                    solution="\n".join(sums),
                )
            )
        return tuple(problems)

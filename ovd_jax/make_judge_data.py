"""Writes what students really sample, with the exact score of each step, as rows that
teach the embedded judges; `launch/sft.py` reads them. One round of DAgger
(arXiv:1011.0686): the judge is taught on what the students it judges will write.
"""

import functools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.files import whole_file
from ovd_jax.reporting.monitor import enable_compilation_cache
from ovd_jax.seeds import derive
from ovd_jax.tasks.arithmetic import ArithmeticTask, evaluate
from ovd_jax.tasks.base import Problem
from ovd_jax.text import decode
from ovd_jax.toy.arithmetic_examples import joined
from ovd_jax.toy.corruption import judged_solution
from ovd_jax.toy.graded import graded, right_prefixes
from ovd_jax.wiring.models import find_model, load_model, load_tokenizer
from ovd_jax.wiring.student import student_sampler
from ovd_jax.wiring.student_samples import (
    exact_turn_scores,
    readings,
    student_rollouts,
)
from ovd_jax.wiring.task import make_task

ROWS = 128  # prompts sampled at a time
Solution = tuple[str, tuple[str, ...]]  # question, lines


def main(config: ConfigDict) -> None:
    """Samples `config.students`, grades every step, and writes `config.output`."""
    started = time.time()
    enable_compilation_cache()
    if config.task not in GRADED:
        raise UserError(
            f"task {config.task!r} has no exact judge; arithmetic has one, and so has "
            "qa about the made-up world."
        )
    counts, rows = [0] * 10, 0
    with whole_file(Path(config.output)) as file:
        for row in GRADED[config.task](config):
            rows += 1
            for score in row["scores"]:
                counts[score] += 1
            file.write(json.dumps(row).encode() + b"\n")
    flags.summary(
        rows=rows,
        steps_by_score=counts,
        output=config.output,
        seconds=round(time.time() - started, 1),
    )


def arithmetic_rows(config: ConfigDict) -> Iterator[dict]:
    """Distinct solutions of the students, and others with made-up slips, each line with
    its score."""
    task = make_task(config)
    assert isinstance(task, ArithmeticTask)
    solutions = []
    for number, student in enumerate(config.students):
        generate = generator(config, task, student)
        problems = task.problems(number, config.problems)
        seed = derive(config.seed, "students", number)
        solutions += sampled(task, generate, problems, config.samples, seed=seed)
    solutions += slips(task, config)
    distinct = list(dict.fromkeys(solutions))
    chances = chances_of(config, task, distinct)
    for question, lines in distinct:
        known = {
            count: chances[question, lines[:count]]
            for count in right_prefixes(question, lines)
        }
        scores = graded(question, lines, known)
        yield {"question": question, "lines": lines, "scores": scores}


def world_rows(config: ConfigDict) -> Iterator[dict]:
    """Distinct conversations of the students, each turn with its observation and
    score."""
    scores = exact_turn_scores(config)
    tokenizer = load_tokenizer(find_model(config.students[0], "student"))
    task, told = make_task(config, tokenizer), set()
    for number, student in enumerate(config.students):
        with student_rollouts(config, student) as rollouts:
            problems = task.problems(number, config.problems)
            for start in range(0, len(problems), ROWS):
                part = problems[start : start + ROWS]
                seed = derive(config.seed, "students", number, start)
                trajectories, _, _ = rollouts(part, seed=seed)
                asked = [problem for problem in part for _ in range(config.samples)]
                for problem, trajectory in zip(asked, trajectories, strict=True):
                    if (problem.question, trajectory.text) in told:
                        continue
                    told.add((problem.question, trajectory.text))
                    yield {
                        "question": problem.question,
                        "turns": trajectory.turns,
                        "readings": readings(trajectory),
                        "scores": scores(problem, trajectory),
                    }


def generator(config: ConfigDict, task: ArithmeticTask, student: str) -> Callable:
    """`(prompts, seed=, samples=) -> completions` of the model named `student`."""
    folder = find_model(student, "student")
    tokenizer = load_tokenizer(folder)
    sampler = student_sampler(config, folder, tokenizer, task)
    call = functools.partial(sampler, load_model(folder, config))

    def generate(texts: Sequence[str], *, seed: int, samples: int) -> list[list[str]]:
        found = []
        for start in range(0, len(texts), ROWS):
            prompts = [
                tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in texts[start : start + ROWS]
            ]
            groups = call(prompts, seed=derive(seed, start), samples=samples)
            found += [
                [decode(tokenizer, completion.tokens) for completion in group]
                for group in groups
            ]
        return found

    return generate


def sampled(
    task: ArithmeticTask,
    generate: Callable,
    problems: Sequence[Problem],
    samples: int,
    *,
    seed: int,
) -> Iterator[Solution]:
    """The student's solutions of the problems, divided into lines."""
    texts = generate([task.prompt(p) for p in problems], seed=seed, samples=samples)
    for problem, group in zip(problems, texts, strict=True):
        for text in group:
            if lines := tuple(line for line in text.split("\n") if line):
                yield problem.question, lines


def slips(task: ArithmeticTask, config: ConfigDict) -> Iterator[Solution]:
    """Solutions with made-up slips, so that the judge learns other mistakes too."""
    rng = random.Random(derive(config.seed, "slips"))
    for problem in task.problems(len(config.students), config.slips):
        yield problem.question, tuple(judged_solution(problem.question, rng)[0])


def chances_of(
    config: ConfigDict, task: ArithmeticTask, solutions: Sequence[Solution]
) -> dict[Solution, float]:
    """The share of `config.continuations` that end right after each right prefix."""
    wanted = {}
    for question, lines in solutions:
        for count in right_prefixes(question, lines):
            wanted[question, lines[:count]] = 0.0
    generate = generator(config, task, config.continuer_of)
    texts = [f"{question}=\n{joined(lines)}" for question, lines in wanted]
    groups = generate(
        texts, seed=derive(config.seed, "chances"), samples=config.continuations
    )
    for (question, lines), group in zip(list(wanted), groups, strict=True):
        reached = evaluate(lines[-1])
        assert reached is not None  # after a right line
        value = str(reached[0])
        wanted[question, lines] = sum(task.extract(x) == value for x in group) / len(
            group
        )
    return wanted


GRADED = {"arithmetic": arithmetic_rows, "qa": world_rows}

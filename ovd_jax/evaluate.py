"""Accuracy, avg@k and pass@k of a model on a task's held-out problems."""

import dataclasses
import functools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ovd_jax import audit, build, flags, monitor
from ovd_jax.processes import FromMain, on_main, on_mesh
from ovd_jax.progress import results_table
from ovd_jax.seeds import derive
from ovd_jax.tasks import Problem, Task, make_task


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One problem with its k completions and their rewards."""

    problem: Problem
    texts: tuple[str, ...]
    rewards: tuple[float, ...]


def evaluate(
    problems: Sequence[Problem],
    *,
    task: Task,
    generate: Callable,
    tokenizer,
    samples: int,
    rows: int,
    seed: int,
) -> list[Evaluated]:
    """Samples and grades every problem, `rows` problems at a time; none is dropped."""
    results = []
    for start in range(0, len(problems), rows):
        part = problems[start : start + rows]
        prompts = [
            tokenizer(task.prompt(problem), add_special_tokens=False)["input_ids"]
            for problem in part
        ]
        groups = generate(
            prompts, seed=derive(seed, "evaluate", start), samples=samples
        )
        texts = [
            tokenizer.decode(completion.tokens, skip_special_tokens=True)
            for group in groups
            for completion in group
        ]
        asked = [problem for problem in part for _ in range(samples)]
        rewards = task.rewards(asked, texts)
        for i, problem in enumerate(part):
            of_problem = slice(i * samples, (i + 1) * samples)
            results.append(
                Evaluated(problem, tuple(texts[of_problem]), tuple(rewards[of_problem]))
            )
    return results


def accuracy(results: Sequence[Evaluated]) -> float:
    """Mean reward over all completions (avg@k)."""
    return statistics.fmean(statistics.fmean(r.rewards) for r in results)


def pass_at(k: int, results: Sequence[Evaluated]) -> float:
    """Chance that one of k completions is right, unbiased (arXiv:2107.03374, eq. 1)."""

    def one(rewards):
        n, right = len(rewards), sum(reward == 1.0 for reward in rewards)
        return 1 - math.comb(n - right, k) / math.comb(n, k)

    return statistics.fmean(one(result.rewards) for result in results)


@on_mesh
def main(config):
    """Evaluates `config.model` and writes every item to `run_dir/items.jsonl`."""
    started = time.time()
    monitor.enable_compilation_cache()
    if config.evaluate == "teacher":
        audit.main(config)
        return
    folder = build.find_model(config.model, "student")
    tokenizer = build.load_tokenizer(folder)
    task = FromMain(make_task(config, tokenizer), "rewards")
    sampler = build.student_sampler(
        config, folder, tokenizer, task, temperature=config.eval_temperature
    )
    results = evaluate(
        task.held_out(config.eval_problems),
        task=task,
        generate=functools.partial(sampler, build.load_model(folder, config)),
        tokenizer=tokenizer,
        samples=config.eval_samples,
        rows=config.eval_rows,
        seed=config.seed,
    )
    on_main(report, config, task, results, started)


def report(config, task: Task, results: Sequence[Evaluated], started: float) -> None:
    """Items, table and the summary line."""
    path = Path(config.run_dir)
    path.mkdir(parents=True, exist_ok=True)
    with open(path / "items.jsonl", "w", encoding="utf-8") as file:
        for result in results:
            row = dataclasses.asdict(result)
            row["extracted"] = [task.extract(text) for text in result.texts]
            file.write(json.dumps(row) + "\n")
    scores = {f"avg@{config.eval_samples}": accuracy(results)}
    k = 1
    while k <= config.eval_samples and config.eval_samples > 1:
        scores[f"pass@{k}"] = pass_at(k, results)
        k *= 2
    results_table(
        f"{config.model} on {config.task}, {len(results)} problems",
        ("measure", "value"),
        [(name, f"{value:.1%}") for name, value in scores.items()],
    )
    flags.summary(
        model=config.model, task=config.task, problems=len(results),
        accuracy=accuracy(results), **scores,
        seconds=round(time.time() - started, 1), items=str(path / "items.jsonl"),
    )  # fmt: skip

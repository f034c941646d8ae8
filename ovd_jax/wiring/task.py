"""The tasks, by name. A new task is one more entry in `make_task`."""

from collections.abc import Callable

from ovd_jax.errors import UserError
from ovd_jax.tasks.arithmetic import ArithmeticTask, Difficulty
from ovd_jax.tasks.base import Task
from ovd_jax.toy.data import load_problems


def make_task(config, tokenizer=None, make_search: Callable | None = None) -> Task:
    """The task that `config.task` names, seeded by `config.seed`.

    `tokenizer` renders chat templates, and begins plain prompts. `make_search()` is the
    engine of prompts that show documents.
    """
    if config.task == "arithmetic":
        difficulty = Difficulty(**config.arithmetic)
        return ArithmeticTask(
            difficulty=difficulty, seed=config.seed, tokenizer=tokenizer
        )
    if config.task == "math":
        from ovd_jax.tasks.math import MathTask  # imports the grader's libraries

        return MathTask(
            data=config.data,
            held_out_data=config.held_out_data,
            seed=config.seed,
            template=config.prompt_template,
            tokenizer=tokenizer,
            step_rule=config.step_rule,
            tolerance=config.math_tolerance,
            max_prompt_tokens=config.max_prompt_tokens,
            load=load_problems,
        )
    if config.task == "qa":
        from ovd_jax.tasks.qa import QATask
        from ovd_jax.tasks.qa_prompts import load_prompt

        reads = load_prompt(config.qa.prompt).reads
        return QATask(
            data=config.data,
            held_out_data=config.held_out_data,
            seed=config.seed,
            prompt=config.qa.prompt,
            reward=config.qa.reward,
            chat=config.prompt_template == "chat",
            tokenizer=tokenizer,
            max_prompt_tokens=config.max_prompt_tokens,
            search=make_search() if reads and make_search else None,
            max_observation_chars=config.search.max_chars,
            load=load_problems,
        )
    raise UserError(f"task {config.task!r} is not one of arithmetic, math, qa.")

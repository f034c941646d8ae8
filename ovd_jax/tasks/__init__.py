"""The tasks, by name. A new task is one more entry in `make_task`."""

from ovd_jax.tasks.arithmetic import ArithmeticTask, Difficulty
from ovd_jax.tasks.base import Problem, Task, steps

__all__ = ["ArithmeticTask", "Problem", "Task", "make_task", "steps"]


def make_task(config, tokenizer=None) -> Task:
    """The task that `config.task` names, seeded by `config.seed`.

    `tokenizer` renders chat templates; tasks without one ignore it.
    """
    if config.task == "arithmetic":
        difficulty = Difficulty(**config.arithmetic)
        return ArithmeticTask(difficulty=difficulty, seed=config.seed)
    if config.task == "math":
        from ovd_jax.tasks.math import MathTask  # imports the grader's libraries

        return MathTask(
            data=config.data,
            held_out_data=config.held_out_data,
            seed=config.seed,
            template=config.prompt_template,
            tokenizer=tokenizer,
            step_rule=config.step_rule,
            max_prompt_tokens=config.max_prompt_tokens,
        )
    raise ValueError(f"task {config.task!r} is not one of arithmetic, math.")

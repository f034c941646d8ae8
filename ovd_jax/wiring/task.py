"""The task, and the sets that an evaluation is over. A task of your own is
`config.task=path/to/file.py:Class`."""

from collections.abc import Callable

from ml_collections import ConfigDict

from ovd_jax.errors import UserError
from ovd_jax.evaluation.sets import (
    EvalSet,
    check_known,
    file_sources,
    is_files,
    parse,
    spread,
)
from ovd_jax.own_code import build, load_code, names_code
from ovd_jax.tasks.arithmetic import ArithmeticTask, Difficulty
from ovd_jax.tasks.base import Task
from ovd_jax.tasks.own_reward import OwnReward
from ovd_jax.text import Tokenizer
from ovd_jax.toy.data import load_problems


def make_task(
    config: ConfigDict,
    tokenizer: Tokenizer | None = None,
    make_search: Callable | None = None,
) -> Task:
    """The task of `config.task` with the rewards of `config.reward`, if that is set.

    `tokenizer` renders chat templates and begins plain prompts. `make_search()` makes
    the engine of prompts that show documents.
    """
    task = named_task(config, tokenizer, make_search)
    if not config.get("reward"):  # configs of fine-tuning lack this knob
        return task
    return OwnReward(task, load_code(config.reward, "reward"))


def named_task(
    config: ConfigDict, tokenizer: Tokenizer | None, make_search: Callable | None
) -> Task:
    """The task without `config.reward`; user code gets the config and the tokenizer."""
    if names_code(config.task):
        return build(config.task, "task", Task, config, tokenizer)
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
        return qa_task(config, tokenizer, make_search)
    raise UserError(f"task {config.task!r} is not one of arithmetic, math, qa.")


def qa_task(
    config: ConfigDict, tokenizer: Tokenizer | None, make_search: Callable | None
) -> Task:
    """Question answering; with an engine if its prompt shows documents."""
    from ovd_jax.tasks.qa import QATask  # imports the readers of data sets
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


def eval_sets(config: ConfigDict, task: Task) -> list[EvalSet]:
    """The sets that `config.eval_sets` names, or the task's held-out problems.

    An entry is a name of `task.sources` or of a file in `config.data`, `name@k` for k
    samples of each problem, or `*` for every file there.
    """
    if not config.eval_sets:
        if not config.eval_problems:
            raise UserError(
                "eval_problems 0 takes all problems of eval_sets, which is empty; set "
                "one of the two."
            )
        problems = task.held_out(config.eval_problems)
        return [EvalSet(config.task, problems, config.eval_samples, False)]
    wanted = dict(map(parse, config.eval_sets))
    sources = file_sources(config.data) if config.data else dict(task.sources)
    if is_files(config.data) or "*" in wanted:
        names = sorted(sources) if "*" in wanted else list(sources)
    else:
        names = list(wanted)
        check_known(names, sources, config.data)
    found = []
    for name in names:
        own = wanted.get(name, wanted.get("*"))
        problems = spread(task.load(sources[name]), config.eval_problems)
        found.append(EvalSet(name, problems, own or config.eval_samples, bool(own)))
    return found

"""The student's samplers, here or behind a server."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.evaluation.served_student import ServedStudent
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.tasks.base import Task
from ovd_jax.text import Tokenizer
from ovd_jax.wiring.models import shapes, stop_ids
from ovd_jax.wiring.servers import make_transport


def student_sampler(
    config: ConfigDict, folder: Path, tokenizer: Tokenizer, task: Task, **changes: Any
) -> Sampler:
    """The sampler of training; `changes` replace its fields."""
    fields = {
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_k": config.top_k,
        "top_p": config.top_p,
        **shapes(config),
    }
    return Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        stop_strings=(*task.stop_strings, *config.stop_strings),
        **fields | changes,
    )


def held_out_sampler(
    config: ConfigDict, folder: Path, tokenizer: Tokenizer, task: Task
) -> Sampler:
    """The sampler of held-out evaluation."""
    return student_sampler(
        config, folder, tokenizer, task, temperature=config.eval_temperature
    )


def served_student(
    config: ConfigDict,
    folder: Path,
    tokenizer: Tokenizer,
    stop_strings: tuple[str, ...],
    temperature: float,
) -> ServedStudent:
    """The student behind the server at `config.engine`; `folder` has its tokenizer."""
    return ServedStudent(
        make_transport(
            config.engine,
            config.teacher,
            name=config.engine_served_name,
            knob="engine",
        ),
        tokenizer=tokenizer,
        max_new_tokens=config.max_new_tokens,
        temperature=temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        stop_strings=(*stop_strings, *config.stop_strings),
        stop_ids=stop_ids(folder, tokenizer),
    )

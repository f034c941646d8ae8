"""Requests for one step of the teacher, and where the step ends."""

import dataclasses
from collections.abc import Sequence

from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Task
from ovd_jax.tasks.steps import sure_end
from ovd_jax.teacher.base import DemonstrationRequest, Teacher


def demonstrated_steps(
    teacher: Teacher, task: Task, requests: Sequence[DemonstrationRequest], *, seed: int
) -> list[str | None]:
    """The teacher's answers to requests for one step, which stop where a step may end.

    If an answer stopped inside a step, such as in displayed mathematics, it is asked
    for again without stopping.
    """
    stop = task.step_stop
    requests = [dataclasses.replace(request, stop=stop) for request in requests]
    texts = list(teacher.demonstrate(requests, seed=derive(seed, "teacher")))
    inside = [
        i
        for i, text in enumerate(texts)
        if stop and text and text.endswith(stop) and step_end(task, text) is None
    ]
    if inside:
        again = teacher.demonstrate(
            [dataclasses.replace(requests[i], past_stop=True) for i in inside],
            seed=derive(seed, "past the stop"),
        )
        for i, text in zip(inside, again, strict=True):
            texts[i] = text
    return texts


def step_end(task: Task, text: str | None) -> int | None:
    """Where the first step of the teacher's text ends; None without a complete
    step."""
    if not text:
        return None
    if may_go_on(task, text):
        return sure_end(text, task.step_ends)
    return task.step_ends(text)[0]


def may_go_on(task: Task, text: str) -> bool:
    """True if the solution may continue after the text, judging by its end."""
    return text.endswith(("\n", task.step_stop or "\n"))

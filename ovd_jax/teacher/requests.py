"""From a request to the text for a teacher of any kind.

`count(name=1)` counts what is left out of a request, by the names of `LEFT_OUT` in
client/accounting.py.
"""

from collections.abc import Callable

from ovd_jax.errors import UserError
from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest
from ovd_jax.teacher.prompts import TeacherPrompt
from ovd_jax.teacher.self_scores import strip_self_scores
from ovd_jax.template import MAX_SLOT, fill


def uncounted(**amounts: int) -> None:
    """A `count` that does nothing."""


def score_text(
    prompt: TeacherPrompt,
    request: ScoreRequest,
    special_tokens: tuple[str, ...],
    count: Callable = uncounted,
) -> str:
    """The question for a score, without the chat around it."""
    template = prompt.score_trajectory if request.whole else prompt.score_step
    return _judged(prompt, template, request, special_tokens, count)


def feedback_text(
    prompt: TeacherPrompt,
    request: ScoreRequest,
    special_tokens: tuple[str, ...],
    count: Callable = uncounted,
) -> str:
    """The question for feedback, without the chat around it."""
    return _judged(prompt, prompt.feedback, request, special_tokens, count)


def demonstration_texts(
    prompt: TeacherPrompt,
    request: DemonstrationRequest,
    special_tokens: tuple[str, ...],
    count: Callable = uncounted,
) -> tuple[str, str] | None:
    """The question for a solution, without the chat around it, and the beginning of the
    answer; None if that is too long."""
    if len(request.prefix) > MAX_SLOT:
        count(prefixes_too_long=1)
        return None
    question = fill(
        prompt.demonstrate,
        special_tokens,
        on_cut=lambda name: count(slots_cut=1),
        question=request.question,
    )
    return question, fill("{prefix}", special_tokens, prefix=request.prefix)


def _judged(prompt, template: str, request: ScoreRequest, special_tokens, count) -> str:
    if prompt.shows_reference and not request.reference:
        raise UserError(
            "This teacher.prompt shows the gold answer to the judge, and there is none "
            "here: evaluation never gives it. Choose a prompt without {reference}."
        )
    slots = {"question": request.question, "reference": request.reference}
    for name in ("previous", "text"):
        slots[name] = strip_self_scores(
            getattr(request, name),
            request.question,
            prompt.labels,
            on_claim=lambda: count(claims_removed=1),
        )
    slots["step"] = slots["solution"] = slots.pop("text")
    used = {name: slots[name] for name in slots if f"{{{name}}}" in template}
    return fill(
        template, special_tokens, on_cut=lambda name: count(slots_cut=1), **used
    )

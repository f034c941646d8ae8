"""From a request to the text that puts it to a teacher, however that is reached."""

from ovd_jax.errors import UserError
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.wording import TeacherPrompt, fill, without_claims


def score_text(
    prompt: TeacherPrompt, request: ScoreRequest, special_tokens: tuple[str, ...]
) -> str:
    """The question for a score, without the chat around it."""
    if request.whole:
        return _judged(prompt, prompt.score_trajectory, request, special_tokens)
    return _judged(prompt, prompt.score_step, request, special_tokens)


def feedback_text(
    prompt: TeacherPrompt, request: ScoreRequest, special_tokens: tuple[str, ...]
) -> str:
    """The question why a solution is wrong, without the chat around it."""
    return _judged(prompt, prompt.feedback, request, special_tokens)


def _judged(prompt, template: str, request: ScoreRequest, special_tokens) -> str:
    if prompt.shows_reference and not request.reference:
        raise UserError(
            "This teacher.prompt shows the gold answer to the judge, and there is none "
            "here: evaluation never gives it. Choose a prompt without {reference}."
        )
    own = {"previous": request.previous, "step": request.text, "solution": request.text}
    slots = {name: without_claims(x, request.question) for name, x in own.items()}
    slots |= {"question": request.question, "reference": request.reference}
    return fill(template, special_tokens, **slots)

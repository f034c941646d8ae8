"""From a request to the text that puts it to a teacher, however that is reached."""

from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.prompts import TeacherPrompt, fill


def score_text(
    prompt: TeacherPrompt, request: ScoreRequest, special_tokens: tuple[str, ...]
) -> str:
    """The question for a score, without the chat around it."""
    if request.whole:
        return fill(
            prompt.score_trajectory,
            special_tokens,
            question=request.question,
            solution=request.text,
        )
    return fill(
        prompt.score_step,
        special_tokens,
        question=request.question,
        previous=request.previous,
        step=request.text,
    )

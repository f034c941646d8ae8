"""Finds out what a server supports, with requests like those of the run."""

import logging
from collections.abc import Mapping

from ovd_jax.client.dialect import learn
from ovd_jax.client.distribution import leading
from ovd_jax.client.labels import read_label
from ovd_jax.client.replies import Refused, Reply
from ovd_jax.client.served_model import CONSTRAINTS, OPEN, TRIAL, ServedModel
from ovd_jax.errors import UserError
from ovd_jax.thoughts import holds_thought, opens_thought

_log = logging.getLogger(__name__)
_TOPS = (20, 10, 5, 3)  # numbers of likeliest tokens that servers are willing to show
_THOUGHT_TOKENS = 512  # in which a thought about a simple question ends
_MOST = 0.5  # of the probability


async def find_dialect(served: ServedModel, body: Mapping) -> None:
    """Finds the dialect in which the server accepts `body`, a `solution_body`. Raises
    TeacherError if there is none."""
    served.dialect, _ = await learn(served.dialect, body, served.ask)


async def probe_judge(served: ServedModel, text: str, temperature: float) -> None:
    """Finds out how to ask the server for a score, with the question `text`;
    `temperature` is that of drawn labels.

    Raises UserError for a model that thinks before its score, TeacherError if the
    server accepts no such question.
    """
    shown = await _find_top(served, text)
    for spelling in CONSTRAINTS:
        if served.constraint is None and await _obeys(served, spelling):
            served.constraint = spelling
    if not served.top:
        body = served.label_body(text, temperature, 0)
        served.dialect, reply = await learn(served.dialect, body, served.ask)
        if read_label(reply.text, served.labels):
            return
        shown = reply
    if why := await _thinks(served, text, shown):
        raise UserError(
            f"The teacher {served.name} at {served.url} is a thinking model: {why}. "
            "It would be asked for its score in the middle of a thought. Serve it so "
            "that it does not think (for vLLM --default-chat-template-kwargs "
            "'{\"enable_thinking\": false}', or a --chat-template that opens no "
            "thought), or set teacher.url and teacher.served_name to another model."
        )


def say_changes(served: ServedModel) -> None:
    """Warns of the changes to requests for the server."""
    if changes := str(served.dialect):
        _log.warning(
            "The server at %s refuses fields of requests: %s.", served.url, changes
        )


def say_what_is_missing(served: ServedModel, *, judges: bool) -> None:
    """Warns of unsupported features."""
    lacks = {
        "answers that are begun for it (labels of several tokens count nothing, "
        "and it is asked in words to go on from a prefix)": served.continues,
    }
    if judges:
        lacks |= {
            "log-probabilities (a score is one answer, not a distribution)": served.top,
            "choice between given answers (a label that it does not show among its "
            "likeliest tokens counts nothing)": served.constraint,
        }
    if missing := [what for what, has in lacks.items() if not has]:
        _log.warning("The teacher at %s has no %s.", served.url, "; no ".join(missing))


async def _try(served: ServedModel, body: Mapping) -> Reply | None:
    """The reply to a trial; None if the server refuses it."""
    try:
        return await served.ask(served.dialect.spoken(body))
    except Refused:
        return None


async def _find_top(served: ServedModel, text: str) -> Reply | None:
    """Finds how many likeliest tokens the server shows; returns the reply that showed
    them."""
    for top in _TOPS:
        body = served.next_token_body(text, "", top)
        # Each trial twice: one strange answer must not decide about the whole run.
        tried = [await _try(served, body) for _ in range(2)]
        if replies := [reply for reply in tried if reply is not None]:
            best = max(replies, key=lambda reply: len(reply.first_tokens or ()))
            served.top = len(best.first_tokens or ())
            return best
    return None


async def _obeys(served: ServedModel, spelling: str) -> bool:
    """True if a constraint makes it write two digits that it would not write
    otherwise."""
    obeyed = set()
    for digit in ("7", "3", "7", "3"):
        body = served.next_token_body(TRIAL, "", served.top)
        reply = await _try(
            served, body | {"max_tokens": 2} | CONSTRAINTS[spelling]([digit])
        )
        if reply and reply.text.strip() == digit:
            obeyed.add(digit)
    return len(obeyed) == 2


async def find_continuing(served: ServedModel) -> None:
    """Finds out whether the model can continue a partial answer: an open answer has
    fewer tokens than a closed one."""
    if not served.chat:
        return
    messages = [
        {"role": "user", "content": "Count to nine."},
        {"role": "assistant", "content": "1 2 3"},
    ]
    body = {"messages": messages, "max_tokens": 1}
    opened, closed = await _try(served, body | OPEN), await _try(served, body)
    if opened and closed:
        served.continues = 0 < opened.tokens_in < closed.tokens_in


async def _thinks(served: ServedModel, text: str, reply: Reply | None) -> str:
    """Evidence that the model thinks before it answers `text`; empty without any.
    `reply` is the beginning of an answer."""
    if not served.chat:
        return ""
    tokens = reply.first_tokens or {} if reply else {}
    for token, probability in tokens.items():
        if probability > _MOST and (opens_thought(token) or token == "<|channel|>"):
            return f"its first token is {token!r}"
    prompt = {"max_tokens": 1, "prompt_logprobs": 0} | served.begun(text, "")
    tail = await _try(served, prompt)  # vLLM shows what the template made of it
    if tail and tail.prompt_tokens:
        first = (next(iter(place.values()), (0, "")) for place in tail.prompt_tokens)
        if opens_thought("".join(token for _, token in first)):
            return "its chat template opens a thought"
    if sum(leading(tokens, served.labels).values()) > _MOST:
        return ""
    body = served.begun(text, "") | {"max_tokens": _THOUGHT_TOKENS, "temperature": 1.0}
    answer = await _try(served, body)
    if answer and holds_thought(answer.text):
        return f"it answers {answer.text[:60]!r}"
    if any(seen and seen.thought for seen in (reply, tail, answer)):
        return "its server says that it reasons before it answers"
    return ""

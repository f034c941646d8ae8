"""From the body of an answer to what it says; nothing in it is taken on trust."""

import dataclasses
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from ovd_jax.errors import TeacherError, UserError

_MOST_TOKENS = 2**40  # of one answer, whatever a server says
_BRIEFLY = reprlib.Repr()  # a cut of a body that may be huge, or deep
_BRIEFLY.maxstring = _BRIEFLY.maxother = 100
_MASKED = -9000.0  # vLLM writes -9999 for a token that cannot come
# Spellings of `finish_reason` for an answer that was cut. All others are an end: stop,
# eos, eos_token, STOP, stop_sequence, end_turn, ...
_CUT = re.compile(
    r"length|max\w*[ _-]?tokens?|max_seq|limit|context_window|truncated|incomplete",
    re.IGNORECASE,
)
_BROKEN = re.compile(  # the server gave up in the middle
    r"abort|error|cancel|fail|timeout|interrupt|insufficient|overload|malformed",
    re.IGNORECASE,
)
_SPOKEN = ("text", "output_text")  # types of a message's parts; others are thoughts


class Unavailable(TeacherError):
    """No usable answer this time; the same request may have one later."""

    congested = False  # the server has too much to do
    lost = False  # the connection broke: it may be another server that is back
    retry_after: float | None = None  # seconds that the server asked for
    server_error = False  # the server answered with HTTP 5xx

    def __init__(self, message: str, **facts):
        super().__init__(message)
        for name, value in facts.items():
            setattr(self, name, value)


class Refused(TeacherError):
    """The server will not answer this request, however often it is asked."""


class Unreadable(TeacherError):
    """The server answers this request, but with nothing that can be used."""


class Denied(TeacherError):
    """The server answers us nothing at all."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """One choice of a completion or chat completion."""

    text: str
    finished: bool  # the model ended it; False: cut at the budget
    first_tokens: Mapping[str, float] | None  # likeliest first tokens: probability
    model: str  # as the server calls itself; may be empty
    tokens_in: int
    tokens_out: int
    thought: bool = False  # the server says that the model thought before it answered
    at_stop: bool | None = None  # whether a stop string ended it; None: it is not said
    # Of each token of the prompt, if asked for: {id: (log-probability, text)}.
    prompt_tokens: Sequence[Mapping[int, tuple[float, str]]] | None = None


def parse(body: Any) -> Reply:
    """The reply in a decoded JSON body. Raises Unavailable for any other shape."""
    try:
        choice = body["choices"][0]
        usage = body.get("usage") or {}
        why = _finish_reason(choice)
        reply = Reply(
            text=_text(choice),
            finished=not _CUT.search(why),
            first_tokens=_first_tokens(choice.get("logprobs")),
            model=str(body.get("model") or ""),
            tokens_in=_count(usage.get("prompt_tokens")),
            tokens_out=_count(usage.get("completion_tokens")),
            thought=_thought(choice, usage),
            at_stop=_at_stop(choice),
            prompt_tokens=_prompt_tokens(
                choice.get("prompt_logprobs", body.get("prompt_logprobs"))  # of a chat
            ),
        )
    except (
        AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        raise Unavailable(
            "its answer has not the shape of a completion "
            f"({type(error).__name__}: {error!s:.200}): {_BRIEFLY.repr(body)}"
        ) from None
    if _BROKEN.search(why):
        raise Unavailable(f"it broke off its answer (finish_reason {why})")
    return reply


def _finish_reason(choice: Mapping) -> str:
    """Why an answer ends there; SGLang's own form has more beside it."""
    reason = choice.get("finish_reason")
    return str(reason.get("type") if isinstance(reason, Mapping) else reason)


def _count(value) -> int:
    """A number of tokens; 0 where there is none."""
    count = int(value or 0)
    if not 0 <= count < _MOST_TOKENS:
        raise ValueError(f"{reprlib.repr(value)} tokens")
    return count


def _text(choice: Mapping) -> str:
    """The text of a chat's message or of a plain completion; "" where it is null."""
    if "message" in choice:
        return _joined(choice["message"].get("content"))
    return _joined(choice["text"])


def _joined(content) -> str:
    """A text, or the texts of a list of parts without those that are thoughts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_joined, content))
    if not isinstance(content, Mapping):
        raise TypeError(f"content of the type {type(content).__name__}")
    if content.get("type", "text") not in _SPOKEN:
        return ""
    text = content.get("text")
    return _joined(text.get("value") if isinstance(text, Mapping) else text)


def _thought(choice: Mapping, usage: Mapping) -> bool:
    """Whether the server says that the model thought before it answered."""
    message = choice.get("message") or {}
    details = usage.get("completion_tokens_details") or {}
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return bool(
        message.get("reasoning_content")
        or message.get("reasoning")
        or details.get("reasoning_tokens")
        or any(
            isinstance(part, Mapping) and part.get("type") in ("thinking", "reasoning")
            for part in parts
        )
    )


def _at_stop(choice: Mapping) -> bool | None:
    """Whether a stop string ended an answer, by vLLM, SGLang or TGI; else None."""
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            return isinstance(choice[name], str)
    reason = choice.get("finish_reason")
    if isinstance(reason, Mapping):  # SGLang's own: what matched, a text or a token id
        return isinstance(reason.get("matched"), str)
    return {"stop_sequence": True, "eos": False, "eos_token": False}.get(str(reason))


def _prompt_tokens(places) -> list[dict[int, tuple[float, str]]] | None:
    """vLLM's `prompt_logprobs`; the first token has none."""
    if places is None:
        return None
    return [
        {
            int(token): (_logprob(entry["logprob"]), str(entry.get("decoded_token")))
            for token, entry in (place or {}).items()
        }
        for place in places
    ]


def _logprob(value) -> float:
    """`value`, if it can be the log of a probability."""
    if math.isnan(value) or value > 1e-3:
        raise UserError(
            f"{value} is no log-probability; vLLM gives such with "
            "--logprobs-mode raw_logits or processed_logits"
        )
    return value


def _first_tokens(logprobs: Mapping | None) -> dict[str, float] | None:
    """Probabilities of the first token, summed over tokens that read alike."""
    if not logprobs:
        return None
    if "content" in logprobs:
        first = (logprobs["content"] or [{}])[0]
        pairs = [(x["token"], x["logprob"]) for x in first.get("top_logprobs") or ()]
        if "token" in first and first["token"] not in dict(pairs):
            pairs.append((first["token"], first["logprob"]))
    else:
        pairs = list(((logprobs.get("top_logprobs") or [None])[0] or {}).items())
    if not pairs:
        return None
    probs = {}
    for token, logprob in pairs:
        if _logprob(logprob) > _MASKED:
            probs[str(token)] = probs.get(str(token), 0.0) + math.exp(logprob)
    return probs

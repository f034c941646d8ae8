"""A served teacher's probabilities of given tokens."""

import functools
import zlib
from collections.abc import Mapping, Sequence

from ovd_jax.client.reminder import Refusals
from ovd_jax.client.replies import Refused, Reply, Unavailable
from ovd_jax.client.served_model import patient
from ovd_jax.client.transport import Transport
from ovd_jax.errors import UserError
from ovd_jax.text import Tokenizer, decode

_PROBE = "Solve 12 * (3 + 4) = x.\nFirst, 3 + 4 = 7; then 12 * 7 = 84, so x = 84.\n"
_ALIKE = 0.9  # of the probe's tokens; others may be spelled differently


class ServedTokens:
    """Log-probabilities of prompts, from vLLM's /completions.

    Teacher and student must share a vocabulary: the student's token ids are sent.
    Raises UserError if they do not, or if the server does not support it.
    """

    def __init__(self, transport: Transport, *, tokenizer: Tokenizer, top: int):
        self._transport = transport
        self._top = top  # likeliest tokens at each position
        transport.run([transport.connect])
        self._refusals = Refusals()
        self._check_vocabulary(tokenizer)

    def read(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[list[Mapping[int, float]] | None]:
        """For each token of each (prompt, completion) the log-probabilities by token
        id: its own and those of the likeliest ones.

        None for a text that the server refuses, such as one that is too long. Raises
        TeacherError if it refuses one after the other.
        """
        jobs = [
            functools.partial(self._read, f"{priority:09}", prompt, completion)
            for priority, (prompt, completion) in enumerate(rows)
        ]
        return self._transport.run(jobs)

    def metrics(self) -> dict[str, float | None]:
        """Counts and seconds since the last call, under other names than those of a
        teacher of text."""
        taken = self._transport.accounting.take()
        return {
            name.replace("teacher", "token_teacher"): x for name, x in taken.items()
        }

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()

    async def _read(self, priority: str, prompt, completion) -> list | None:
        tokens = [*map(int, prompt), *map(int, completion)]
        body = {"prompt": tokens, "max_tokens": 1, "prompt_logprobs": self._top}

        @patient
        def check(reply: Reply) -> None:
            check_prompt(reply, tokens, self._top)

        affinity = zlib.crc32(repr(tuple(prompt)).encode())
        try:
            reply = await self._transport.post(
                "/completions", body, priority=priority, check=check, affinity=affinity
            )
        except Refused as error:
            self._transport.accounting.count(unanswered=1)
            self._refusals.add(affinity, error)
            return None
        self._refusals.answered()
        return [
            {token: logprob for token, (logprob, _) in place.items()}
            for place in (reply.prompt_tokens or ())[len(prompt) :]
        ]

    def _check_vocabulary(self, tokenizer: Tokenizer) -> None:
        tokens = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        body = {"prompt": tokens, "max_tokens": 1, "prompt_logprobs": self._top}
        ask = functools.partial(
            self._transport.probe, "/completions", body, {"prompt": tokens}
        )
        try:
            (reply,) = self._transport.run([ask])
        except Refused as error:
            raise UserError(
                f"{error}. The run asks for the {self._top} likeliest tokens a place, "
                "which is distill.top_k; vLLM shows as many as --max-logprobs says."
            ) from None
        url = self._transport.endpoints[0].url
        places = reply.prompt_tokens
        if places is None:
            raise UserError(
                f"The teacher at {url} shows no prompt_logprobs, which token-level "
                "distillation needs; vLLM does."
            )
        alike = [
            decode(tokenizer, [token], special=True).strip() == place[token][1].strip()
            for token, place in zip(tokens[1:], places[1:], strict=False)
            if token in place
        ]
        if sum(alike) < _ALIKE * (len(tokens) - 1):
            raise UserError(
                f"The teacher at {url} has another vocabulary than the student: "
                f"{sum(alike)} of {len(tokens) - 1} tokens of a text mean the same to "
                "both. Token-level distillation needs one tokenizer; the methods ovd, "
                "seq_kd and dpo_pairs do not."
            )


def check_prompt(reply: Reply, tokens: Sequence[int], top: int) -> None:
    """Raises Unavailable unless every position but the first has `top` tokens and the
    one that was sent."""
    places = reply.prompt_tokens or ()
    if len(places) != len(tokens):
        raise Unavailable(f"it shows {len(places)} places of {len(tokens)} tokens")
    for index, (token, place) in enumerate(zip(tokens[1:], places[1:], strict=True), 1):
        if token not in place or len(place) < top:
            raise Unavailable(
                f"it shows {len(place)} tokens and not {top} with {token} in place "
                f"{index}"
            )

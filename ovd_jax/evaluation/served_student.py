"""A student behind an OpenAI-compatible server, called as our sampler is."""

import contextlib
import dataclasses
import functools
import logging
import queue
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovd_jax.client.dialect import Dialect, learn
from ovd_jax.client.reminder import Refusals
from ovd_jax.client.replies import Refused, Reply
from ovd_jax.client.transport import Transport
from ovd_jax.conversation.batch import Conversations
from ovd_jax.errors import TeacherError
from ovd_jax.sampling.completion import Completion
from ovd_jax.seeds import derive
from ovd_jax.text import Tokenizer, decode, start_token

_log = logging.getLogger(__name__)
# What servers take besides the standard fields, the most exact first: token ids, or
# text to which nothing is added, and settings that else come from the model's folder.
_NEUTRAL = {"repetition_penalty": 1.0, "min_p": 0.0}
_PATH = "/completions"
_DIALECTS = ("tokens", "text", "plain text")
_MAY_CHANGE = ("max_tokens", "seed")  # the others decide what is measured
_NOTHING = Reply("", False, None, "", 0, 0)


@dataclasses.dataclass
class _Row:
    """A completion or a conversation under way."""

    prompt: list[int]
    limit: int  # tokens behind the prompt, in all
    seed: int
    turns: int = 0
    tokens: list[int] = dataclasses.field(default_factory=list)
    observed: list[bool] = dataclasses.field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens that may follow."""
        return self.limit - len(self.tokens)

    @property
    def turn_seed(self) -> int:
        """What the next turn is drawn from."""
        return derive(self.seed, "turn", self.turns) if self.turns else self.seed

    def add(self, tokens: Sequence[int], *, observed: bool) -> None:
        """Appends what was written, or read."""
        self.tokens += tokens
        self.observed += [observed] * len(tokens)
        self.turns += not observed


class ServedStudent:
    """Samples through `/completions`, where the prompt is the text that is continued:
    no chat template but ours is applied, and no token added."""

    def __init__(
        self,
        transport: Transport,
        *,
        tokenizer: Tokenizer,
        max_new_tokens: int,
        temperature: float,
        top_k: int = 0,
        top_p: float = 1.0,
        stop_strings: tuple[str, ...] = (),
        stop_ids: tuple[int, ...] = (),
    ):
        self._transport = transport
        self._tokenizer = tokenizer
        self._max = max_new_tokens
        self._standard: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
        if stop_strings:
            self._standard["stop"] = list(stop_strings)
        self._extra = _NEUTRAL | {
            "top_k": top_k or -1,
            "stop_token_ids": list(stop_ids),
            "include_stop_str_in_output": True,
        }
        self._fields, self._refusals = Dialect(), Refusals(transport.role)
        (self._dialect,) = transport.run([self._find_dialect])

    @property
    def model(self) -> tuple[str, str]:
        """Its name there, and where the server has its weights from."""
        return self._transport.model

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | None = None,
        environment: Conversations | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """(row, completion), rows prompt-major, as the server answers. Each is drawn
        from `seed` and its number in `draws`, or its row.

        With an `environment` rows are conversations, as the sampler's; searches run
        while other rows are answered, and all turns end before any row reads on.
        """
        limits = [self._max] * len(prompts) if limits is None else limits
        going = {}
        for number in range(len(prompts) * samples):
            place, sample = divmod(number, samples)
            drawn = number if draws is None else draws[place][sample]
            going[number] = _Row(
                list(prompts[place]), limits[place], derive(seed, drawn)
            )
        while going:
            asked, going = going, {}
            for number, reply in self._answers(asked):
                row, turn = asked[number], self._completion(reply, environment)
                row.add(turn.tokens, observed=False)
                if environment is not None:
                    (goes_on,) = environment.ended([(number, turn, row.left)])
                    if goes_on:
                        going[number] = row
                        continue
                    turn = _whole(row, turn.stopped)
                yield number, turn
            going = dict(sorted(going.items()))
            if going and environment is not None:
                found = environment.observations(list(going))
                for row, tokens in zip(going.values(), found, strict=True):
                    row.add(tokens, observed=True)

    def _answers(self, rows: Mapping[int, _Row]) -> Iterator[tuple[int, Reply]]:
        """(number, what follows that row), as they come."""
        answers: queue.SimpleQueue = queue.SimpleQueue()

        async def answer(number: int, row: _Row):
            answers.put((number, await self._ask(row, f"{number:09}")))

        jobs = [functools.partial(answer, *item) for item in rows.items()]
        thread = threading.Thread(target=self._run, args=(jobs, answers), daemon=True)
        thread.start()
        while (item := answers.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self, jobs, answers: queue.SimpleQueue) -> None:
        try:
            self._transport.run(jobs)
            answers.put(None)
        except BaseException as error:  # raised where the answers are read
            answers.put(error)

    async def _ask(self, row: _Row, priority: str) -> Reply:
        """What follows a row; nothing, and cut, where the server refuses it: it may be
        over the context length."""
        bounds = {"max_tokens": min(self._max, row.left), "seed": row.turn_seed}
        body = self._body([*row.prompt, *row.tokens], self._dialect) | bounds
        affinity = zlib.crc32(repr(tuple(row.prompt)).encode())
        try:
            reply = await self._transport.post(
                _PATH, self._fields.spoken(body), priority=priority, affinity=affinity,
                check=lambda reply: None,
            )  # fmt: skip
        except Refused as error:
            self._refusals.add(affinity, error)
            return _NOTHING
        self._refusals.answered()
        return reply

    def _body(self, prompt: Sequence[int], dialect: str) -> dict:
        if dialect == "tokens":
            return {"prompt": list(prompt)} | self._standard | self._extra
        text = decode(self._tokenizer, prompt, special=True)
        if dialect == "text":
            more = self._extra | {"add_special_tokens": False}
            return {"prompt": text} | self._standard | more
        text = text.removeprefix(start_token(self._tokenizer))  # the server adds it
        return {"prompt": text} | self._standard

    async def _find_dialect(self) -> str:
        """The most exact one that the server does not refuse. Where it refuses all, a
        field of the last one is left out."""
        await self._transport.connect()
        prompt = self._tokenizer("1 + 1 =")["input_ids"]
        plain = {"prompt": decode(self._tokenizer, prompt)}
        ask = functools.partial(self._transport.probe, _PATH, plain=plain)
        for dialect in _DIALECTS:
            body = self._body(prompt, dialect) | {"max_tokens": 1, "seed": 0}
            with contextlib.suppress(Refused):
                reply = await ask(body)
                break
        else:
            self._fields, reply = await self._find_fields(body, ask)
        if reply.tokens_in not in (0, len(prompt)):
            _log.warning(
                "The server reads %d tokens where the prompt has %d: it adds some, "
                "or has another tokenizer than config.model.",
                reply.tokens_in,
                len(prompt),
            )
        return dialect

    async def _find_fields(self, body: Mapping, ask) -> tuple[Dialect, Reply]:
        try:
            fields, reply = await learn(self._fields, body, ask, _MAY_CHANGE)
        except TeacherError as error:
            raise TeacherError(f"The server completes no text: {error}") from None
        _log.warning("The student's server refuses fields of requests: %s.", fields)
        return fields, reply

    def _completion(
        self, reply: Reply, environment: Conversations | None
    ) -> Completion:
        text, ends = reply.text, reply.finished
        if environment is not None and ends:
            if self._dialect == "plain text":  # which leaves a stop string out
                text = environment.first_turn(text) or text
            ends = not any(stop in text for stop in self._standard.get("stop", ()))
        tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if ends:
            tokens = [*tokens, self._tokenizer.eos_token_id]
        return Completion(tuple(tokens), (0.0,) * len(tokens), reply.finished)


def _whole(row: _Row, stopped: bool) -> Completion:
    """A conversation that is over."""
    size = len(row.tokens)
    return Completion(tuple(row.tokens), (0.0,) * size, stopped, tuple(row.observed))

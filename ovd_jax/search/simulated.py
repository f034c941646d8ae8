"""A language model as a search engine (ZeroSearch, arXiv:2505.04588).

It writes useful or noisy documents; the share of noisy ones grows with training.
"""

import copy
import functools
import random
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ovd_jax.client.probe import find_dialect, say_changes
from ovd_jax.client.reminder import Refusals
from ovd_jax.client.replies import Refused, Unavailable
from ovd_jax.client.served_model import Question, ServedModel
from ovd_jax.client.transport import Transport
from ovd_jax.errors import TeacherError
from ovd_jax.search.base import Document, Query, SearchError
from ovd_jax.search.engine import Away
from ovd_jax.search.simulator_prompts import SimulatorPrompt, ask, read
from ovd_jax.seeds import derive
from ovd_jax.text import (
    Tokenizer,
    chat_prompt,
    check_chat,
    decode,
    plain_prompt,
    special_tokens,
)
from ovd_jax.thoughts import after_thought

if TYPE_CHECKING:
    from ovd_jax.sampling.completion import Generate


def noise_share(step: int, total: int, start: float, end: float) -> float:
    """The probability of noisy documents in training step `step` of `total`: it grows
    from `start` to `end`, slowly at first (ZeroSearch, eq. 2, base 4)."""
    progress = min(1.0, step / total) if total else 1.0
    return start + (4**progress - 1) / 3 * (end - start)


class Writer(Protocol):
    """A model that answers prompts."""

    special_tokens: tuple[str, ...]

    @property
    def identity(self) -> Mapping:
        """Everything that decides its answers besides text and seed, as JSON."""
        ...

    def write(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """An answer to each text, possibly cut. Raises SearchError."""
        ...

    def view(self) -> "Writer":
        """The same model with separate metrics."""
        ...

    def metrics(self) -> dict[str, float]:
        """The costs since the last call."""
        ...

    def close(self) -> None:
        """Ends connections."""
        ...


class Simulated:
    """An engine whose documents, up to `topk`, a `writer` makes up.

    If a query has the answers, as in training, its documents are noisy with probability
    `share(step)`, drawn for each query. `begin` sets the step.
    """

    draws = True

    def __init__(
        self,
        writer: Writer,
        *,
        prompt: SimulatorPrompt,
        topk: int,
        share: Callable[[int], float],
    ):
        self._writer = writer
        self._prompt = prompt
        self._topk = topk
        self._share = share
        self._noise = 0.0
        self._counts, self._lock = Counter(), threading.Lock()

    def view(self) -> "Simulated":
        """The same engine with separate noise and counts."""
        return Simulated(
            self._writer.view(),
            prompt=self._prompt, topk=self._topk, share=self._share,
        )  # fmt: skip

    @property
    def identity(self) -> Mapping:
        """Changes with the share of noise."""
        asked = {"prompt": vars(self._prompt), "topk": self._topk}
        return {"engine": "simulated", "noise": self._noise, **asked} | {
            "writer": self._writer.identity
        }

    def begin(self, step: int) -> None:
        """Sets the training step, which decides the noise."""
        self._noise = self._share(step)

    def find(
        self, queries: Sequence[Query], seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """Made-up documents; each query is drawn from its own seed."""
        noisy = [
            bool(query.answers)
            and random.Random(derive(seed, "noise")).random() < self._noise
            for query, seed in zip(queries, seeds, strict=True)
        ]
        texts = [
            ask(
                self._prompt,
                query,
                count=self._topk,
                noisy=is_noisy,
                special_tokens=self._writer.special_tokens,
                on_cut=lambda name: self._count(slots_cut=1),
            )
            for query, is_noisy in zip(queries, noisy, strict=True)
        ]
        answers = self._writer.write(texts, seeds)
        self._count(made=len(noisy), noisy=sum(noisy))
        return [
            read(answer, self._topk, lambda name: self._count(documents_cut=1))
            for answer in answers
        ]

    def metrics(self) -> dict[str, float]:
        """The share of noisy queries, the cuts in prompts, and the writer's costs."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        own = {"search_noise_share": counts["noisy"] / max(1, counts["made"])}
        for name in ("slots_cut", "documents_cut"):
            own[f"search_{name}"] = float(counts[name])
        return own | self._writer.metrics()

    def _count(self, **amounts: int) -> None:
        with self._lock:
            self._counts.update(amounts)

    def close(self) -> None:
        """Ends the writer's connections."""
        self._writer.close()


class ServedWriter:
    """A model behind an OpenAI-compatible API."""

    def __init__(
        self, transport: Transport, *, chat: bool, temperature: float, max_tokens: int
    ):
        self._transport = transport
        self._served = ServedModel(transport, chat=chat, labels=())
        self._settings = {"temperature": temperature, "max_tokens": max_tokens}
        self._refusals = Refusals(transport.role)
        transport.run([transport.connect])
        (self.special_tokens,) = transport.run([self._served.control_tokens])
        trial = self._served.solution_body("Write a yes.", "", seed=0, **self._settings)
        transport.run([functools.partial(find_dialect, self._served, trial)])
        say_changes(self._served)
        self.identity = {"model": self._served.name, "chat": chat, **self._settings}

    def write(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Sends one request for each text, all at once; empty if the server refuses
        it."""
        jobs = [
            functools.partial(self._write_one, Question(text, text, priority), seed)
            for priority, (text, seed) in enumerate(zip(texts, seeds, strict=True))
        ]
        try:
            return self._transport.run(jobs)
        except Unavailable as error:
            raise Away(f"The simulated search engine: {error}") from error
        except TeacherError as error:
            raise SearchError(
                f"The simulated search engine: {error}; see search.url."
            ) from error

    async def _write_one(self, question: Question, seed: int) -> str:
        body = self._served.solution_body(
            question.text, "", seed=seed, **self._settings
        )
        try:
            reply = await self._served.solution(question, body)
        except Refused as error:
            self._refusals.add(zlib.crc32(question.text.encode()), error)
            return ""
        self._refusals.answered()
        return after_thought(reply.text) or ""

    def view(self) -> "ServedWriter":
        """As in `Writer`."""
        view = copy.copy(self)
        view._transport = self._transport.view()
        view._served = self._served.through(view._transport)
        return view

    def metrics(self) -> dict[str, float]:
        """Requests, retries, tokens and latencies, like those of a teacher."""
        taken = self._transport.accounting.take()
        named = {k.replace("teacher", "search_model"): v for k, v in taken.items()}
        return {k: v for k, v in named.items() if v is not None}

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()


class LocalWriter:
    """A model in this process: `generate(prompts, seed=, draws=)` is a sampler with its
    model."""

    def __init__(
        self,
        generate: "Generate",
        tokenizer: Tokenizer,
        *,
        chat: bool,
        identity: Mapping,
    ):
        if chat:
            check_chat(tokenizer, "set search.prompt to 'plain'")
        self.identity = {**identity, "chat": chat}
        self.special_tokens = special_tokens(tokenizer)
        self._generate = generate
        self._tokenizer = tokenizer
        self._chat = chat

    def write(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Writes one batch; an answer that was cut at the budget is used as it is."""
        prompts = [self._encode(text) for text in texts]
        draws = [[seed] for seed in seeds]
        groups = self._generate(prompts, seed=0, draws=draws)
        return [decode(self._tokenizer, completion.tokens) for (completion,) in groups]

    def view(self) -> "LocalWriter":
        """Returns itself: it counts nothing."""
        return self

    def metrics(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Does nothing: there are no connections."""

    def _encode(self, text: str) -> list[int]:
        begin = chat_prompt if self._chat else plain_prompt
        text = begin(self._tokenizer, text)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

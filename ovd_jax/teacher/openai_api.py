"""A teacher behind an OpenAI-compatible API: vLLM, or any other server."""

import functools
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ovd_jax.client.cache import DiskCache
from ovd_jax.client.distribution import LabelReader
from ovd_jax.client.pending import Pending
from ovd_jax.client.probe import (
    find_continuing,
    find_dialect,
    probe_judge,
    say_changes,
    say_what_is_missing,
)
from ovd_jax.client.reminder import Refusals
from ovd_jax.client.served_model import Question, ServedModel
from ovd_jax.client.transport import Transport
from ovd_jax.errors import TeacherError
from ovd_jax.seeds import derive
from ovd_jax.teacher.base import (
    TRIAL,
    DemonstrationRequest,
    RequestKey,
    Score,
    ScoreRequest,
    complete_part,
    draw_seeds,
    read_score,
)
from ovd_jax.teacher.failure_policy import FailurePolicy
from ovd_jax.teacher.outside_mass import OutsideMass
from ovd_jax.teacher.prompts import TeacherPrompt
from ovd_jax.teacher.requests import demonstration_texts, feedback_text, score_text
from ovd_jax.template import fill
from ovd_jax.thoughts import after_thought, holds_thought


class OpenAITeacher:
    """Scores by the exact label distribution, demonstrates by sampling.

    A request without an answer is scored best or None, or raises TeacherError, by
    `on_failure`: see `FailurePolicy`. A server that refuses all requests, or never
    scores, raises TeacherError. Every draw is a function of the seed and the request's
    place among the others, however often it had to be sent.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        prompt: TeacherPrompt,
        score_rule: str,
        score_temperature: float,
        temperature: float,
        max_new_tokens: int,
        on_failure: str,
        stop: tuple[str, ...] = (),  # ends a demonstration, excluded
        cache: DiskCache | None = None,
        judges: bool = True,  # True if it is asked for scores
        thoughts: bool = False,  # True if demonstrations contain <think>
    ):
        self.levels = len(prompt.labels)
        self._transport = transport
        self._accounting = transport.accounting
        self._prompt = prompt
        self._rule = score_rule
        self._score_temperature = score_temperature
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._policy = FailurePolicy(on_failure, transport.accounting)
        self._stop = stop
        self._cache = cache
        self._thoughts = thoughts or holds_thought(prompt.demonstrate)
        role = transport.role
        self._unscored, self._unwritten = Refusals(role), Refusals(role)
        self._outside = OutsideMass()
        self._served = ServedModel(transport, chat=prompt.chat, labels=prompt.labels)
        transport.run([transport.connect])
        (self._special,) = transport.run([self._served.control_tokens])
        transport.run([functools.partial(self._probe, judges)])
        self._reader = LabelReader(
            prompt.labels, constrained=bool(self._served.constraint)
        )

    async def _probe(self, judges: bool) -> None:
        text = fill(self._prompt.demonstrate, self._special, question=TRIAL.question)
        await find_dialect(self._served, self._body(text, "", 0, self._stop))
        await find_continuing(self._served)
        if judges:
            text = score_text(self._prompt, TRIAL, self._special)
            await probe_judge(self._served, text, self._label_temperature)
        say_changes(self._served)
        say_what_is_missing(self._served, judges=judges)

    @property
    def name(self) -> str:
        """The name of the served model, with the source of its weights."""
        return self._served.name

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[Score | None]:
        """One score a request, None if it is to be dropped.

        Equal questions are sent once; each request still has its own draw.
        """
        return self.begin(requests, seed=seed, request_keys=request_keys).result()

    def begin(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> Pending:
        """Starts to score while the caller goes on; `result()` returns what `score`
        does."""
        texts = [self._worded(score_text, request) for request in requests]
        seeds = draw_seeds(seed, request_keys, len(requests))
        # Without probabilities the server draws, and each draw is a question.
        draws = not self._served.top and self._rule != "argmax"
        keys = list(zip(texts, seeds if draws else [0] * len(texts), strict=True))
        affinities = {
            key: problem_hash(request.question)
            for key, request in zip(keys, requests, strict=True)
        }
        # Sorted by text: requests with a common beginning are sent one after the other,
        # so that the server's prefix cache has it.
        asked = sorted(affinities)
        jobs = [
            functools.partial(
                self._scored, Question(text, text, affinities[text, draw]), draw
            )
            for text, draw in asked
        ]

        def scores(answers: list) -> list[Score | None]:
            masses = dict(zip(asked, answers, strict=True))
            read = [
                self._score(masses[key], random.Random(each))
                for key, each in zip(keys, seeds, strict=True)
            ]
            self._outside.add(read)
            return read

        return self._transport.begin(jobs, then=scores)

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[str | None]:
        """Continues each prefix by sampling; None if the budget ran out, the prefix is
        too long or no answer came. Thoughts before the answer are removed.

        With a cache, equal requests of equal `attempt` get the same answer in every
        call.
        """
        seen = Counter()
        bodies = {}
        draws = draw_seeds(seed, request_keys, len(requests))
        for index, (request, drawn) in enumerate(zip(requests, draws, strict=True)):
            if self._cache is not None:
                drawn = derive(0, "cache", request.attempt, seen[request])
                seen[request] += 1
            if parts := self._worded(demonstration_texts, request):
                stops = (request.stops_at,) if request.stops_at else ()
                bodies[index] = self._body(*parts, drawn, (*self._stop, *stops))
        asked = [requests[index] for index in bodies]
        written: list[str | None] = [None] * len(requests)
        answers = self._written(asked, list(bodies.values()))
        for index, answer in zip(bodies, answers, strict=True):
            if answer is not None:
                written[index] = usable(answer, requests[index])
        return written if self._thoughts else [x and after_thought(x) for x in written]

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """The model's feedback on each solution, cut at the budget; None if no answer
        came."""
        bodies = [
            self._body(
                self._worded(feedback_text, request),
                "",
                derive(seed, index),
                self._stop,
            )
            for index, request in enumerate(requests)
        ]
        answers = self._written(requests, bodies)
        return [None if x is None else after_thought(x["text"]) for x in answers]

    def metrics(self) -> dict[str, float | None]:
        """Counts of requests and seconds waited since the last call."""
        return self._accounting.take()

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()

    async def _scored(self, question: Question, seed: int) -> list[float] | None:
        """Probabilities of the labels; None if the trajectory is to be dropped."""
        answer = await self._policy.ask(self._unscored, question, self._masses, seed)
        if not isinstance(answer, TeacherError):
            return answer
        if not self._policy.accepts(answer):
            return None
        return [0.0] * (self.levels - 1) + [1.0]

    async def _masses(self, question: Question, seed: int) -> list[float]:
        """Probabilities of the labels; a server that shows none draws one label, which
        gets them all."""
        if self._served.top:
            ask = functools.partial(self._served.next_tokens, question)
            return await self._reader.masses(ask)
        drawn = await self._served.label(question, self._label_temperature, seed)
        return [float(label == drawn) for label in self._prompt.labels]

    @property
    def _label_temperature(self) -> float:
        """The temperature of labels that the server draws."""
        known = {"argmax": 0.0, "expected": 1.0}
        return known.get(self._rule, self._score_temperature)

    def _score(self, masses: list[float] | None, rng: random.Random) -> Score | None:
        if masses is None:
            return None
        rule, temperature = self._rule, self._score_temperature
        return read_score(masses, rule=rule, temperature=temperature, rng=rng)

    def _worded(self, words: Callable, request):
        """The text of a request, by a function of teacher/requests.py."""
        return words(self._prompt, request, self._special, self._accounting.count)

    def _body(self, text: str, prefix: str, seed: int, stop: Sequence[str]) -> dict:
        return self._served.solution_body(
            text,
            prefix,
            max_tokens=self._max_new_tokens,
            temperature=self._temperature,
            seed=seed,
            stop=stop,
        )

    def _written(self, requests, bodies: Sequence[dict]) -> list[dict | None]:
        """The text of each body's answer and whether it finished; None for errors."""
        jobs = [
            functools.partial(
                self._policy.ask,
                self._unwritten,
                Question("", f"{body} {index:06}", problem_hash(request.question)),
                self._solution,
                body,
            )
            for index, (request, body) in enumerate(zip(requests, bodies, strict=True))
        ]
        answers = self._transport.run(jobs)
        return [None if isinstance(x, TeacherError) else x for x in answers]

    async def _solution(self, question: Question, body: dict) -> dict:
        key = {"model": self._served.name, **body}
        kept = self._cache.get(key) if self._cache is not None else None
        if kept is not None:
            self._accounting.count(cache_hits=1)
            return dict(kept)
        reply = await self._served.solution(question, body)
        written = {"text": reply.text, "finished": reply.finished}
        if reply.at_stop is not None:
            written["at_stop"] = reply.at_stop
        if self._cache is not None:
            self._cache.put(key, written)
        return written


def usable(answer: Mapping, request: DemonstrationRequest) -> str | None:
    """The usable part of an answer: see `complete_part`.

    A server leaves out the stop string that it stopped at; it is put back here.
    """
    text, stop = answer["text"], request.stops_at
    if stop and answer["finished"] and answer.get("at_stop", stop not in text):
        text += stop
    return complete_part(text, request, cut=not answer["finished"])


def problem_hash(question: str) -> int:
    """A number shared by all requests about one problem."""
    return zlib.crc32(question.encode("utf-8", "replace"))

"""A teacher behind an OpenAI-compatible API: vLLM, or any other server."""

import functools
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ovd_jax.client.cache import DiskCache
from ovd_jax.client.distribution import LabelReader
from ovd_jax.client.probe import (
    find_continuing,
    find_dialect,
    probe_judge,
    say_changes,
    say_what_is_missing,
)
from ovd_jax.client.reminder import Refusals
from ovd_jax.client.replies import Denied, Refused, Unreadable
from ovd_jax.client.served_model import Question, ServedModel
from ovd_jax.client.transport import Pending, Transport
from ovd_jax.errors import TeacherError, UserError
from ovd_jax.seeds import derive
from ovd_jax.teacher.base import (
    TRIAL,
    DemonstrationRequest,
    Score,
    ScoreRequest,
    complete_part,
    draw_seeds,
    read_score,
)
from ovd_jax.teacher.outside_mass import OutsideMass
from ovd_jax.teacher.prompts import TeacherPrompt
from ovd_jax.teacher.requests import demonstration_texts, feedback_text, score_text
from ovd_jax.template import fill
from ovd_jax.thoughts import after_thought, holds_thought

POLICIES = ("wait", "accept", "drop", "fail")


class OpenAITeacher:
    """Scores by the exact label distribution, demonstrates by sampling.

    A question that stays without an answer is, by `on_failure`: asked again for ever
    (`wait`, which is up to `transport`), scored best (`accept`), scored None (`drop`),
    or a TeacherError (`fail`). One that the server refuses, such as one over the
    context length, is scored None but for `fail`; a server that refuses all, or never
    gives a score, is a TeacherError. Every draw is a function of the seed and of a
    request's place among the others: how often it had to be asked changes nothing.
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
        stop: tuple[str, ...] = (),  # where a demonstration ends; itself left out
        cache: DiskCache | None = None,
        judges: bool = True,  # whether it is asked for scores
        thoughts: bool = False,  # whether <think> is part of a demonstration's form
    ):
        if on_failure not in POLICIES:
            raise UserError(
                f"teacher.on_failure {on_failure!r} is not one of "
                f"{', '.join(POLICIES)}."
            )
        self.levels = len(prompt.labels)
        self._transport = transport
        self._accounting = transport.accounting
        self._prompt = prompt
        self._rule = score_rule
        self._score_temperature = score_temperature
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._on_failure = on_failure
        self._stop = stop
        self._cache = cache
        self._thoughts = thoughts or holds_thought(prompt.demonstrate)
        self._unscored, self._unwritten = Refusals(), Refusals()
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
        """Of the served model, with where its weights come from."""
        return self._served.name

    def score(self, requests: Sequence[ScoreRequest], *, seed: int, places=None):
        """One score a request, None where it is to be dropped; equal questions are
        asked once, though each request has a draw of its own."""
        return self.begin(requests, seed=seed, places=places).result()

    def begin(
        self, requests: Sequence[ScoreRequest], *, seed: int, places=None
    ) -> Pending:
        """Starts to score while the caller does something else; `result` has what
        `score` returns."""
        texts = [self._worded(score_text, request) for request in requests]
        seeds = draw_seeds(seed, places, len(requests))
        # Without probabilities the server draws, and each draw is a question.
        draws = not self._served.top and self._rule != "argmax"
        keys = list(zip(texts, seeds if draws else [0] * len(texts), strict=True))
        homes = {
            key: family(request.question)
            for key, request in zip(keys, requests, strict=True)
        }
        # In order of their text: what begins alike is asked one after the other, so
        # that the server reads it once.
        asked = sorted(homes)
        jobs = [
            functools.partial(
                self._scored, Question(text, text, homes[text, draw]), draw
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
        self, requests: Sequence[DemonstrationRequest], *, seed: int, places=None
    ) -> list[str | None]:
        """Samples on from each prefix; None where the budget ran out first, the prefix
        is too long, or no answer came. What a model thinks before it answers is left
        out. With a cache, equal requests of equal `attempt` are answered alike in every
        call."""
        seen = Counter()
        bodies = {}
        draws = draw_seeds(seed, places, len(requests))
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
        """What the model says of each solution, cut at the budget; None where no answer
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
        return [x and after_thought(x["text"]) for x in self._written(requests, bodies)]

    def metrics(self) -> dict[str, float | None]:
        """What was asked and waited for since the last call."""
        return self._accounting.take()

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()

    async def _ask(self, refusals: Refusals, question: Question, ask, *arguments):
        """The answer to a question, or the error where the policy lets it pass."""
        try:
            answer = await ask(question, *arguments)
        except Denied:
            raise
        except TeacherError as error:
            self._accounting.count(unanswered=1)
            hopeless = isinstance(error, Refused | Unreadable)
            passing = self._on_failure in ("accept", "drop") or (
                hopeless and self._on_failure != "fail"
            )
            if not passing:
                raise
            if hopeless:
                refusals.add(question.home, error)
            return error
        refusals.answered()
        return answer

    async def _scored(self, question: Question, seed: int) -> list[float] | None:
        """Probabilities of the labels; None where the question is left out."""
        answer = await self._ask(self._unscored, question, self._masses, seed)
        if not isinstance(answer, TeacherError):
            return answer
        if self._on_failure != "accept" or isinstance(answer, Refused):
            return None
        return [0.0] * (self.levels - 1) + [1.0]

    async def _masses(self, question: Question, seed: int) -> list[float]:
        """Probabilities of the labels; all on the one drawn where the server shows
        none."""
        if self._served.top:
            ask = functools.partial(self._served.next_tokens, question)
            return await self._reader.masses(ask)
        drawn = await self._served.label(question, self._label_temperature, seed)
        return [float(label == drawn) for label in self._prompt.labels]

    @property
    def _label_temperature(self) -> float:
        """Of labels that the server draws."""
        known = {"argmax": 0.0, "expected": 1.0}
        return known.get(self._rule, self._score_temperature)

    def _score(self, masses: list[float] | None, rng: random.Random) -> Score | None:
        if masses is None:
            return None
        rule, temperature = self._rule, self._score_temperature
        return read_score(masses, rule=rule, temperature=temperature, rng=rng)

    def _worded(self, words: Callable, request):
        """What `words`, a function of teacher/requests.py, makes of a request."""
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
        """What the model writes for each body: its text, and whether it finished."""
        jobs = [
            functools.partial(
                self._ask,
                self._unwritten,
                Question("", f"{body} {index:06}", family(request.question)),
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
            return kept
        reply = await self._served.solution(question, body)
        written = {"text": reply.text, "finished": reply.finished}
        if reply.at_stop is not None:
            written["at_stop"] = reply.at_stop
        if self._cache is not None:
            self._cache.put(key, written)
        return written


def usable(answer: Mapping, request: DemonstrationRequest) -> str | None:
    """What may be used of an answer: see `complete_part`. A server leaves the string
    out that it stopped at: where it may have, that is put back."""
    text, stop = answer["text"], request.stops_at
    if stop and answer["finished"] and answer.get("at_stop", stop not in text):
        text += stop
    return complete_part(text, request, cut=not answer["finished"])


def family(question: str) -> int:
    """A number shared by all requests about one problem."""
    return zlib.crc32(question.encode("utf-8", "replace"))

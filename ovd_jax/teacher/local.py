"""A teacher that is a model in this process, handed over as two functions."""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovd_jax.client.accounting import LEFT_OUT, Accounting
from ovd_jax.errors import UserError
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
from ovd_jax.teacher.outside_mass import OutsideMass
from ovd_jax.teacher.prompts import TeacherPrompt
from ovd_jax.teacher.requests import demonstration_texts, feedback_text, score_text
from ovd_jax.text import (
    Tokenizer,
    chat_prompt,
    check_chat,
    decode,
    plain_prompt,
    special_tokens,
)
from ovd_jax.thoughts import (
    OPENERS,
    after_thought,
    holds_thought,
    opens_thought,
)

if TYPE_CHECKING:
    from ovd_jax.sampling.completion import Completion

_MOST = 0.5  # of the probability of a first token


class LocalTeacher:
    """Scores by the exact label distribution, demonstrates by sampling.

    `label_probabilities(prompts, labels)` and `generate(prompts, seed=)` take token
    ids; `generate` also takes the strings to `stop` at for single steps, and `draws` if
    there are request keys. This class, like all host code, handles no device arrays.
    Raises UserError for a judge that thinks before it answers.
    """

    def __init__(
        self,
        *,
        generate: Callable[..., "list[list[Completion]]"],
        label_probabilities: Callable[..., np.ndarray],
        tokenizer: Tokenizer,
        prompt: TeacherPrompt,
        score_rule: str,
        score_temperature: float,
        judges: bool = True,  # True if it is asked for scores
        thoughts: bool = False,  # True if demonstrations contain <think>
    ):
        if prompt.chat:
            check_chat(
                tokenizer,
                "name another teacher.model, or a teacher.prompt without chat",
            )
        self.levels = len(prompt.labels)
        self._generate = generate
        self._label_probabilities = label_probabilities
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._rule = score_rule
        self._temperature = score_temperature
        self._special = special_tokens(tokenizer)
        self._labels = [self._encode(label) for label in prompt.labels]
        self._accounting = Accounting()
        self._thoughts = thoughts or holds_thought(prompt.demonstrate)
        self._outside = OutsideMass()
        if prompt.chat and judges and (why := self._thinks()):
            raise UserError(
                f"The teacher is a thinking model: {why}. It would be asked for its "
                "score in the middle of a thought. Set teacher.model to one that does "
                "not think, or serve it so that it does not, and set teacher.url."
            )

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[Score | None]:
        """One score a request; equal questions are asked once, with separate draws."""
        prompts = [self._score_prompt(request) for request in requests]
        distinct = list(dict.fromkeys(prompts))
        if not distinct:
            return []
        tokens = [self._encode(prompt) for prompt in distinct]
        with self._accounting.waiting():
            rows = self._label_probabilities(tokens, self._labels)
        self._accounting.count(
            requests=len(distinct),
            tokens_in=sum(map(len, tokens)),
            tokens_out=len(distinct),
        )
        masses = dict(zip(distinct, rows.tolist(), strict=True))
        scores: list[Score | None] = [
            read_score(
                masses[prompt],
                rule=self._rule,
                temperature=self._temperature,
                rng=random.Random(drawn),
            )
            for drawn, prompt in zip(
                draw_seeds(seed, request_keys, len(prompts)), prompts, strict=True
            )
        ]
        self._outside.add(scores)
        return scores

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[str | None]:
        """Continues each prefix by sampling; None if the budget ran out or the prefix
        is too long. Thoughts before the answer are removed."""
        written: list[str | None] = [None] * len(requests)
        draws = draw_seeds(seed, request_keys, len(requests)) if request_keys else None
        for stop in sorted({request.stops_at for request in requests}):
            texts: dict[int, str] = {}
            for i, request in enumerate(requests):
                if request.stops_at == stop and (parts := self._asked(request)):
                    texts[i] = self._in_chat(parts[0]) + parts[1]
            more: dict[str, Any] = {"stop": (stop,)} if stop else {}
            if draws is not None:
                more["draws"] = [[draws[i]] for i in texts]
            completions = self._write(list(texts.values()), seed, **more)
            for i, completion in zip(texts, completions, strict=True):
                if (text := self._answer(completion)) is not None:
                    cut = not completion.stopped
                    written[i] = complete_part(text, requests[i], cut=cut)
        return written

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """The model's feedback on each solution, cut at the budget."""
        texts = [
            self._in_chat(self._worded(feedback_text, request)) for request in requests
        ]
        return [self._answer(completion) for completion in self._write(texts, seed)]

    def metrics(self) -> dict[str, float | None]:
        """Requests, tokens, cuts and seconds waited since the last call."""
        taken = self._accounting.take()
        names = ("teacher_requests", "teacher_tokens_in", "teacher_tokens_out")
        names += ("seconds_teacher", "seconds_teacher_waited")
        names += tuple(f"teacher_{name}" for name in LEFT_OUT)
        return {name: taken[name] for name in names}

    def _answer(self, completion: "Completion") -> str | None:
        text = decode(self._tokenizer, completion.tokens)
        return text if self._thoughts else after_thought(text)

    def _thinks(self) -> str:
        """Evidence that the model thinks before it answers; empty without any."""
        mark = "?!?"
        if opens_thought(self._in_chat(mark).rpartition(mark)[2]):
            return "its chat template opens a thought"
        vocabulary = self._tokenizer.get_vocab()
        openers = [opener for opener in OPENERS if opener in vocabulary]
        if openers:
            prompt = self._encode(self._score_prompt(TRIAL))
            labels = [*self._labels, *([vocabulary[x]] for x in openers)]
            (masses,) = self._label_probabilities([prompt], labels).tolist()
            if sum(masses[len(self._labels) :]) > _MOST:
                return f"its first token is {' or '.join(openers)}"
        return ""

    def _write(self, texts: Sequence[str], seed: int, **more) -> "list[Completion]":
        """One completion after each text; `more` is passed to `generate`."""
        if not texts:
            return []
        tokens = [self._encode(text) for text in texts]
        with self._accounting.waiting():
            groups = self._generate(tokens, seed=seed, **more)
        completions = [completion for (completion,) in groups]
        self._accounting.count(
            requests=len(texts),
            tokens_in=sum(map(len, tokens)),
            tokens_out=sum(len(completion.tokens) for completion in completions),
        )
        return completions

    def _score_prompt(self, request: ScoreRequest) -> str:
        return self._in_chat(self._worded(score_text, request))

    def _asked(self, request: DemonstrationRequest) -> tuple[str, str] | None:
        return self._worded(demonstration_texts, request)

    def _worded(self, words: Callable, request):
        """The text of a request, by a function of teacher/requests.py."""
        count = self._accounting.count
        return words(self._prompt, request, self._special, count)

    def _in_chat(self, text: str) -> str:
        if not self._prompt.chat:
            return plain_prompt(self._tokenizer, text)
        return chat_prompt(self._tokenizer, text)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

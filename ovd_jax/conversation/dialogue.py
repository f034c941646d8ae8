"""Conversations with a search engine: what a turn does, and what is read after it.

A turn is what the student writes up to the first closing tag: a thought, then a query
or an answer. Token ids are never made of its text; text is only read off them.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.search.base import Document, Query
from ovd_jax.search.observation import message, observation, shortened
from ovd_jax.search.pool import SearchBatch, SearchThreads
from ovd_jax.search.tags import ANSWER, SEARCH, contents
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem
from ovd_jax.text import decode, special_tokens

END_TAGS = (f"</{SEARCH}>", f"</{ANSWER}>")  # the first of them ends a turn
_CHARS_A_TOKEN = 8  # more than there are; a reading is shortened until it fits


@dataclasses.dataclass(frozen=True)
class TurnRules:
    """The knobs of conversations; `configs/default.py` explains each."""

    searches: int
    total_tokens: int
    observation_tokens: int
    correction: str
    mask_void: bool


@dataclasses.dataclass(frozen=True)
class Action:
    """What a turn does: `search` for its text, `answer` with it, or nothing valid."""

    kind: str  # search | answer | invalid
    text: str = ""


def action(turn: str) -> Action:
    """What the text of a turn does by its first closing tag; a tag that was not opened
    before, or with nothing in it, does nothing."""
    ends = [(turn.find(tag), tag) for tag in END_TAGS if tag in turn]
    if not ends:
        return Action("invalid")
    end, tag = min(ends)
    name = SEARCH if tag == END_TAGS[0] else ANSWER
    (text, *_) = contents(turn[: end + len(tag)], name) or ("",)
    return Action(name, text) if text else Action("invalid")


def first_turn(text: str) -> str | None:
    """`text` up to its first closing tag; None unless that makes it a valid turn.

    A server that stops at these tags leaves the last one out: it is put back.
    """
    ends = [text.find(tag) + len(tag) for tag in END_TAGS if tag in text]
    if not ends:
        places = [(text.rfind(f"<{name}>"), name) for name in (SEARCH, ANSWER)]
        place, name = max(places)
        text += f"</{name}>" if place >= 0 else ""
        ends = [len(text)]
    turn = text[: min(ends)]
    return None if action(turn).kind == "invalid" else turn


@dataclasses.dataclass
class _Row:
    """A conversation under way."""

    problem: Problem | None
    draw: int  # what its random numbers are made of
    searches: int = 0  # readings so far, those of corrections too
    left: int = 0
    pending: Action | None = None
    written: str = ""  # by the student, in this conversation

    @property
    def place(self) -> tuple:
        """What a search of this row is drawn from, beside the seed."""
        return ("search", self.draw, self.searches)


class Conversations:
    """The environment of one batch of rows (see sampling/completion.py).

    `pool` may be one that only the first process runs (`FromMain`): all of them make
    the same calls, and act on the same results.
    """

    def __init__(self, dialogue: "Dialogue", rows: list[_Row], *, seed: int):
        self._dialogue = dialogue
        self._rows = rows
        self._seed = seed

    def ended(self, turns) -> list[bool]:
        """Starts the searches of turns that ask for one; see `Environment`."""
        going = []
        for number, turn, left in turns:
            row = self._rows[number]
            text = self._dialogue.decode(turn.tokens)
            row.pending, row.left = action(text), left
            row.written += text
            room = left >= self._dialogue.least_room
            tries = row.searches < self._dialogue.rules.searches
            going.append(row.pending.kind != ANSWER and tries and room)
        pairs = zip(turns, going, strict=True)
        self.start([number for (number, _, _), goes in pairs if goes])
        return going

    def start(self, numbers: Sequence[int]) -> None:
        """Starts the searches of those rows that ask for one."""
        searches = []
        for number in numbers:
            row, key = self._rows[number], self._key(number)
            if row.pending.kind == SEARCH:
                query = self._dialogue.query(row.pending.text, row.problem)
                searches.append((key, query, derive(self._seed, *row.place)))
        self._dialogue.pool.start(searches)

    def _key(self, number: int) -> tuple:
        # With the number: rows that are not sampled from share one draw.
        return (self._seed, number, *self._rows[number].place)

    def observations(self, numbers: Sequence[int]) -> list[list[int]]:
        """What was found, or a correction; see `Environment`."""
        rows = {number: self._rows[number] for number in numbers}
        asked = [n for n, row in rows.items() if row.pending.kind == SEARCH]
        found = self._dialogue.pool.take([self._key(n) for n in asked])
        if self._dialogue.refine is not None and asked:
            items = [
                Finding(rows[n].written, rows[n].pending.text, documents)
                for n, documents in zip(asked, found, strict=True)
            ]
            # Not of the rows' draws: no note may depend on what is found beside it.
            found = self._dialogue.refine(items, seed=derive(self._seed, "refine"))
        documents = dict(zip(asked, found, strict=True))
        for row in rows.values():
            row.searches += 1
        return [
            self._dialogue.shown(documents[n], row.left - 1)
            if n in documents
            else self._dialogue.correction
            for n, row in rows.items()
        ]


def numbered(items: Sequence) -> list[str]:
    """A name for each item: its content, and how often that came before."""
    seen, names = Counter(), []
    for item in items:
        names.append(repr((item, seen[item])))
        seen[item] += 1
    return names


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a search found, with what led to it."""

    written: str  # by the student so far
    query: str
    documents: tuple[Document, ...]


class Dialogue:
    """Conversations between a student and a search engine.

    `with_golds` shows a simulator the question and its gold answers: for training, and
    for nothing else. `refine(findings, seed=)` gives the documents that are shown in
    place of those found, such as what a model made of them (Search-o1).
    """

    def __init__(
        self,
        pool: SearchThreads | SearchBatch,
        *,
        rules: TurnRules,
        tokenizer,
        with_golds: bool,
        refine: Callable | None = None,
    ):
        self.pool = pool
        self.rules = rules
        self.refine = refine
        self._tokenizer = tokenizer
        self._special = special_tokens(tokenizer)
        self._with_golds = with_golds
        self._cut = 0  # observations, since the last `metrics`
        self.correction = self.encode(message(rules.correction))
        nothing = self.encode(observation((), self._special, 0))
        self.least_room = max(map(len, (self.correction, nothing))) + 1
        if self.least_room > rules.observation_tokens:
            raise UserError(
                f"turns.observation_tokens {rules.observation_tokens} leaves no room "
                f"for an observation; it takes at least {self.least_room}."
            )

    def generate(
        self,
        sample: Callable,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | None = None,
        problems: Sequence[Problem] | None = None,
        searches: Sequence[int] | None = None,
    ):
        """`samples` conversations after each prompt, in the form in which `sample` (the
        sampler with a model, or its stream) gives completions: with `sample` bound it
        is a plain one itself.

        `searches` says how often each prompt has searched already. `problems`, one a
        prompt, are needed where a simulator is shown the golds.
        """
        if self._with_golds and problems is None:
            raise UserError("A simulator in training needs the problems.")
        count = len(prompts)
        # What a search finds must not depend on the rows beside it, as a number would.
        own = [
            derive(0, place, sample)
            for place in numbered([tuple(map(int, prompt)) for prompt in prompts])
            for sample in range(samples)
        ]
        if draws is None:
            draws = np.arange(count * samples).reshape(count, samples)
        else:
            own = [int(draw) for numbers in draws for draw in numbers]
        problems, searches = problems or [None] * count, searches or [0] * count
        rows = [
            _Row(problems[i // samples], draw, searches[i // samples])
            for i, draw in enumerate(own)
        ]
        limits = [self.rules.total_tokens] * count if limits is None else limits
        return sample(
            prompts, seed=seed, samples=samples, limits=limits, draws=draws,
            environment=Conversations(self, rows, seed=seed),
        )  # fmt: skip

    def look_up(
        self,
        turns: Sequence[str],
        rooms: Sequence[int],
        *,
        seed: int,
        problems: Sequence[Problem],
    ) -> list[list[int]]:
        """What the queries of turns that the student did not write find, in tokens,
        `rooms` of them at most; all of the turns must be searches."""
        asked = [
            (problem.question, turn)
            for problem, turn in zip(problems, turns, strict=True)
        ]
        rows = [
            _Row(problem, derive(0, place))
            for problem, place in zip(problems, numbered(asked), strict=True)
        ]
        for row, turn, room in zip(rows, turns, rooms, strict=True):
            row.pending, row.written, row.left = action(turn), turn, room + 1
        environment = Conversations(self, rows, seed=derive(seed, "look up"))
        environment.start(range(len(rows)))
        return environment.observations(range(len(rows)))

    def metrics(self) -> dict[str, float]:
        """What searches cost, and how often documents were shortened to fit, since the
        last call."""
        cut, self._cut = self._cut, 0
        own = {"observations_cut": float(cut)} | self.pool.metrics()
        return own | self.refine.metrics() if hasattr(self.refine, "metrics") else own

    def query(self, text: str, problem: Problem | None) -> Query:
        """What the engine is asked."""
        if not self._with_golds:
            return Query(text)
        return Query(text, problem.question, problem.golds)

    def shown(self, documents: Sequence[Document], room: int) -> list[int]:
        """Tokens of an observation, `room` of them and `rules.observation_tokens` at
        most: every document is shortened alike, then the last ones are left out."""
        room = min(room, self.rules.observation_tokens)
        chars = room * _CHARS_A_TOKEN
        cut = bool(shortened(documents, chars))
        while True:
            tokens = self.encode(observation(documents, self._special, chars))
            if len(tokens) <= room:
                self._cut += cut
                return tokens
            cut = True
            if chars > len(documents):
                chars = chars * room // (len(tokens) + room // 8 + 1)
            else:
                documents = documents[:-1]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, tokens: Sequence[int]) -> str:
        """What `tokens` say."""
        return decode(self._tokenizer, tokens)

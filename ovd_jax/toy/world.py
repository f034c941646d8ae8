"""A made-up world of people and cities: facts, documents, questions of one or two hops.

    Where was the mother of Mira Sollan born?
    The mother of Mira Sollan is Tova Rendik.     Tova Rendik was born in Velholm.

A seed draws who is related to whom out of fixed names, so nothing about one world can
be known from another: its documents must be read. A quarter of the people and cities,
who are related only among themselves, is held out.
"""

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Iterable, Iterator

from ovd_jax.search.base import Document
from ovd_jax.tasks.base import Problem
from ovd_jax.toy.world_words import (
    CITIES,
    COUNTRIES,
    FIRST_NAMES,
    JOBS,
    LAST_NAMES,
    RELATIONS,
)

_HELD_OUT_SHARE = 0.25


_WORDS = {"job": JOBS, "country": COUNTRIES}


@dataclasses.dataclass(frozen=True)
class Fact:
    """The `relation` of `subject` is `value`."""

    subject: str
    relation: str  # a key of RELATIONS
    value: str

    @property
    def sentence(self) -> str:
        """The sentence in documents."""
        return RELATIONS[self.relation].sentence.format(x=self.subject, y=self.value)

    @property
    def document(self) -> Document:
        """The passage with this fact only."""
        return Document(title=self.subject, text=self.sentence)


@dataclasses.dataclass(frozen=True)
class Need:
    """A fact to search for."""

    subject: str
    relation: str

    @property
    def phrase(self) -> str:
        """Its name in a sentence."""
        return f"the {self.relation} of {self.subject}"

    @property
    def queries(self) -> tuple[str, str]:
        """Two ways to search for it: a few words, and a question."""
        relation = RELATIONS[self.relation]
        return relation.query.format(x=self.subject), relation.ask.format(
            x=self.subject
        )


@dataclasses.dataclass(frozen=True)
class Question:
    """The last of `relations` of the entity that the ones before it lead to."""

    start: str
    relations: tuple[str, ...]  # one a hop
    answer: str

    @property
    def hops(self) -> int:
        """The number of facts that answer it."""
        return len(self.relations)

    @property
    def text(self) -> str:
        """The question as asked."""
        *inner, last = self.relations
        subject = self.start
        for relation in inner:
            subject = f"the {relation} of {subject}"
        return RELATIONS[last].ask.format(x=subject)

    def follow(self, facts: Iterable[Fact]) -> tuple[list[Fact], Need | None]:
        """(facts of the chain in `facts`, the first missing one)."""
        told = {(fact.subject, fact.relation): fact for fact in facts}
        chain, subject = [], self.start
        for relation in self.relations:
            fact = told.get((subject, relation))
            if fact is None:
                return chain, Need(subject, relation)
            chain.append(fact)
            subject = fact.value
        return chain, None


class World:
    """All facts of one world, a function of its seed and size."""

    def __init__(self, seed: int | str = 0, *, people: int = 160, cities: int = 32):
        self.seed = seed
        rng = random.Random(f"world {seed}")
        full = [f"{a} {b}" for a, b in itertools.product(FIRST_NAMES, LAST_NAMES)]
        everyone, everywhere = rng.sample(full, people), rng.sample(CITIES, cities)
        parts = [
            {"person": everyone[a:b], "city": everywhere[c:d]}
            for (a, b), (c, d) in zip(_cut(people), _cut(cities), strict=True)
        ]
        drawn = [list(_draw(part, rng)) for part in parts]
        self.facts = tuple(itertools.chain(*drawn))
        self.subjects = {
            name: "eval" if part else "train"
            for part in (0, 1)
            for name in itertools.chain(*parts[part].values())
        }
        self._about = {}
        for fact in self.facts:
            self._about.setdefault(fact.subject, []).append(fact)

    def documents(self) -> tuple[Document, ...]:
        """One passage for each fact."""
        return tuple(
            dataclasses.replace(fact.document, id=f"fact-{number}")
            for number, fact in enumerate(self.facts)
        )

    @functools.cached_property
    def _questions(self) -> dict[tuple[str, int], tuple[Question, ...]]:
        pools = {(split, hops): [] for split in ("train", "eval") for hops in (1, 2)}
        for name, split in self.subjects.items():
            for question in self._from(name):
                pools[split, question.hops].append(question)
        return {key: tuple(pool) for key, pool in pools.items()}

    def questions(self, split: str, hops: int) -> tuple[Question, ...]:
        """Every question of `hops` about the subjects of a split, train or eval."""
        return self._questions[split, hops]

    def asked(self, text: str) -> Question | None:
        """The question that is asked as `text`; None if no question of this world
        is."""
        return self._by_text.get(text)

    @functools.cached_property
    def _by_text(self) -> dict[str, Question]:
        pools = self._questions.values()
        return {question.text: question for pool in pools for question in pool}

    def _from(self, start: str) -> Iterator[Question]:
        for first in self._about[start]:
            yield Question(start, (first.relation,), first.value)
            for second in self._about.get(first.value, ()):
                relations = (first.relation, second.relation)
                yield Question(start, relations, second.value)

    def find(self, query: str, rng: random.Random, count: int) -> list[Fact]:
        """The results of a good search engine: the fact that `query` asks for, then
        more about its subject, then about its namesakes."""
        words = set(re.findall(r"\w+", query))
        subject = next((name for name in self.subjects if name in query), "")
        about = list(self._about.get(subject, ()))
        rng.shuffle(about)
        about.sort(key=lambda fact: not words & {*RELATIONS[fact.relation].keywords})
        return [*about, *self.noise(query, rng, count)][:count]

    def noise(self, query: str, rng: random.Random, count: int) -> list[Fact]:
        """Facts about others than the subject of `query`, namesakes first."""
        words = set(re.findall(r"\w+", query))
        others = [name for name in self.subjects if name not in query]
        alike = [name for name in others if words & {*name.split()}]
        names = rng.sample(alike, min(count, len(alike)))
        names += rng.sample(others, count)
        return [rng.choice(self._about[name]) for name in names[:count]]


def _cut(count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The bounds of the two parts, training and held out, of `count`."""
    held_out = round(count * _HELD_OUT_SHARE)
    return (0, count - held_out), (count - held_out, count)


def _draw(part: dict[str, list[str]], rng: random.Random) -> Iterator[Fact]:
    """Facts about all in `part`, whose values are in it too; nobody is their own."""
    for relation in RELATIONS.values():
        of, kind = relation.kinds
        values = part.get(kind) or _WORDS[kind]
        for subject in part[of]:
            value = rng.choice(values)
            while value == subject:
                value = rng.choice(values)
            yield Fact(subject, relation.noun, value)


def world_named(name: str) -> World | None:
    """The world called `name`, "world" or "world:SEED"; None for other names."""
    match = re.fullmatch(r"world(?::(\w{1,20}))?", name)
    return World(match[1] or 0) if match else None


def world_problems(world: World, split: str) -> tuple[Problem, ...]:
    """As many questions of two hops as of one, mixed; `split` is train or eval."""
    rng = random.Random(f"problems {world.seed} {split}")
    pools = [world.questions(split, hops) for hops in (1, 2)]
    size = min(map(len, pools))
    questions = [question for pool in pools for question in rng.sample(pool, size)]
    rng.shuffle(questions)
    return tuple(
        Problem(
            id=f"world-{world.seed}-{split}-{number}",
            question=question.text,
            answer=question.answer,
            source=f"world_{question.hops}hop",
        )
        for number, question in enumerate(questions)
    )


_NAME = "[A-Z][a-z]+(?: [A-Z][a-z]+)?"
_SENTENCES = {
    noun: re.compile(
        re.escape(relation.sentence)
        .replace(r"\{x\}", f"(?P<x>{_NAME})")
        .replace(r"\{y\}", f"(?P<y>{_NAME}|[a-z]+)")
    )
    for noun, relation in RELATIONS.items()
}


def read_facts(text: str) -> list[Fact]:
    """The facts in a text."""
    return [
        Fact(match["x"], noun, match["y"])
        for noun, pattern in _SENTENCES.items()
        for match in pattern.finditer(text)
    ]

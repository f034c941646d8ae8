"""The words of the made-up world: its kinds of facts, its names, and no others."""

import dataclasses
import itertools
import random
import re

from ovd_jax.search.tags import TAGS


@dataclasses.dataclass(frozen=True)
class Relation:
    """How one kind of fact is told, asked for and looked up."""

    noun: str  # "the {noun} of X" is Y
    kinds: tuple[str, str]  # of X and of Y: person, city, or a plain word
    sentence: str  # {x} {y}
    ask: str  # {x}
    query: str  # {x}
    keywords: tuple[str, ...]  # of `noun`, `ask` and `query`; no other relation's


def _person(noun: str, of: str = "person") -> Relation:
    return Relation(
        noun,
        (of, "person"),
        f"The {noun} of {{x}} is {{y}}.",
        f"Who is the {noun} of {{x}}?",
        f"{noun} of {{x}}",
        (noun,),
    )


RELATIONS = {
    relation.noun: relation
    for relation in (
        _person("mother"),
        _person("teacher"),
        _person("friend"),
        _person("mayor", of="city"),
        Relation(
            "birthplace", ("person", "city"), "{x} was born in {y}.",
            "Where was {x} born?", "{x} born", ("birthplace", "born"),
        ),
        Relation(
            "job", ("person", "job"), "{x} works as a {y}.",
            "What does {x} work as?", "{x} works", ("job", "work", "works"),
        ),
        Relation(
            "country", ("city", "country"), "{x} is a city in {y}.",
            "Which country is {x} in?", "{x} city", ("country", "city"),
        ),
    )
}  # fmt: skip

JOBS = (
    "baker", "butcher", "carpenter", "clerk", "cook", "dancer", "doctor", "farmer",
    "fisher", "gardener", "hunter", "lawyer", "mason", "nurse", "painter", "pilot",
    "poet", "potter", "sailor", "singer", "smith", "tailor", "weaver", "writer",
)  # fmt: skip


def _names(count: int, *parts: str) -> tuple[str, ...]:
    """`count` names, each of one piece of every one of `parts` (space-separated)."""
    every = ["".join(x).capitalize() for x in itertools.product(*map(str.split, parts))]
    return tuple(random.Random(f"names {parts}").sample(every, count))


FIRST_NAMES = _names(32, "b d f k l m n r s t v", "a e i o", "l m n r v", "a e i o")
LAST_NAMES = _names(
    40, "bar cor del fen gal jor kel mar nor pel ros sol tam ven", "d k l m r t",
    "ack an en ik il os ur",
)  # fmt: skip
CITIES = _names(
    60, "al bru dor el fal gren hav il kor lun mor ost pra ral sel tor ul vel",
    "burg dale ford gate holm stad ville wick",
)  # fmt: skip
COUNTRIES = _names(
    20, "bel cal dar fro gor hel lor nav tel tur", "a o u", "land nia ria"
)


def vocabulary() -> tuple[str, ...]:
    """Every word, sign and tag that a world's texts are made of."""
    texts = ["Question: Doc Title Search useful noisy That does not help I need the of"]
    texts += [text for r in RELATIONS.values() for text in (r.sentence, r.ask, r.query)]
    texts += [*RELATIONS, *JOBS, *FIRST_NAMES, *LAST_NAMES, *CITIES, *COUNTRIES]
    words = re.findall(
        r"[A-Za-z]{2,}|[^\w\s{}]", " ".join(texts).replace("{x}", "").replace("{y}", "")
    )
    return tuple(dict.fromkeys([*TAGS, *words, "I", "a", *"0123456789"]))

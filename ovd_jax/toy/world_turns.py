"""Turns of a search agent in the made-up world: the right one, slips, their scores.

A turn is a thought, then a query or an answer:

    <think> The mother of Mira Sollan is Tova Rendik. I need the birthplace of Tova
    Rendik. </think>
    <search> Tova Rendik born </search>
"""

import dataclasses
import random
import re
from collections.abc import Sequence

from ovd_jax.toy.world import Fact, Need, Question, read_facts
from ovd_jax.toy.world_words import FIRST_NAMES, LAST_NAMES, RELATIONS

_TURN = re.compile(
    r"<think> (?P<thought>[^<>]+) </think>\n"
    r"<(?P<tag>search|answer)> (?P<text>[^<>]+) </(?P=tag)>"
)


def turn(thought: str, tag: str, text: str) -> str:
    """The text of a turn; `tag` is search or answer."""
    return f"<think> {thought} </think>\n<{tag}> {text} </{tag}>"


@dataclasses.dataclass
class State:
    """What has been asked and read on a question so far."""

    question: Question
    queries: list[str] = dataclasses.field(default_factory=list)
    facts: list[Fact] = dataclasses.field(default_factory=list)
    searched: Need | None = None  # what was needed when the last query was written

    def follow(self) -> tuple[list[Fact], Need | None]:
        """(what is known of the chain of facts, the first one still needed)."""
        return self.question.follow(self.facts)

    def read(self, query: str, facts: list[Fact]) -> None:
        """Takes in a query and what it found."""
        self.searched = self.follow()[1]
        self.queries.append(query)
        self.facts += facts


def right_turn(state: State) -> str:
    """The answer if all is known, else a search for what is needed next; where the last
    one did not help, in other words."""
    chain, need = state.follow()
    told = chain[-1].sentence if chain else ""
    if need is None:
        return turn(told, "answer", chain[-1].value)
    keywords, question = need.queries
    if state.searched != need:
        return turn(f"{told} I need {need.phrase}.".strip(), "search", keywords)
    query = question if state.queries[-1] == keywords else keywords
    return turn(f"That does not help. I need {need.phrase}.", "search", query)


def hasty_turn(state: State) -> str:
    """The right turn of who takes the first fact found for the answer."""
    chain, _ = state.follow()
    if not chain:
        return right_turn(state)
    return turn(chain[0].sentence, "answer", chain[0].value)


def query_of(text: str) -> str | None:
    """What a turn searches for; None if it does not."""
    match = _TURN.fullmatch(text)
    return match["text"] if match and match["tag"] == "search" else None


def score_turn(state: State, text: str) -> int:
    """The exact score of a turn, 0 to 9.

    0: no turn at all. Answers: 9 if what was read says so, else 1. Queries: 9 for what
    is needed next, 7 if worded oddly, 4 if too broad, too narrow or asked just before,
    3 if nothing is needed any more, 1 about somebody else. A thought that tells what
    was not read costs all above 5.
    """
    match = _TURN.fullmatch(text)
    if not match:
        return 0
    chain, need = state.follow()
    if match["tag"] == "answer":
        right = need is None and match["text"] == chain[-1].value
        score = 9 if right else 1
    else:
        score = 3 if need is None else _score_query(state, need, match["text"])
    invented = set(read_facts(match["thought"])) - set(state.facts)
    return min(score, 5) if invented else score


def graded_turns(
    question: Question, turns: Sequence[str], readings: Sequence[str]
) -> list[int]:
    """The exact score of each turn of a conversation; `readings` holds what was read
    after each, empty after the last."""
    state, scores = State(question), []
    for text, reading in zip(turns, readings, strict=True):
        scores.append(score_turn(state, text.strip()))
        query = query_of(text.strip())
        if query is not None:
            state.read(query, read_facts(reading))
    return scores


def _score_query(state: State, need: Need, query: str) -> int:
    if need.subject not in query:
        return 1
    words = set(re.findall(r"\w+", query))
    named = {noun for noun, r in RELATIONS.items() if words & {*r.keywords}}
    if named != {need.relation} or query in state.queries[-1:]:
        return 4
    return 9 if query in need.queries else 7


def slip(state: State, rng: random.Random) -> str:
    """A turn such as a weak student writes, wrong more often than not."""
    right = right_turn(state)
    chain, need = state.follow()
    query = query_of(right)
    kinds = [_other_name, _other_name, _other_name, _garbled, _guess, _guess]
    if query is None:
        kinds += [_needless]
    else:
        kinds += [_other_query, _other_query]
    if state.facts:
        kinds += [_misread, _misread]
    if chain and need:
        kinds += [lambda state, right, rng: hasty_turn(state)] * 3
    return rng.choice(kinds)(state, right, rng)


def _other_name(state: State, right: str, rng: random.Random) -> str:
    """One name is another, at one place or from there to the end."""
    spots = list(re.finditer("|".join((*FIRST_NAMES, *LAST_NAMES)), right))
    if not spots:
        return _guess(state, right, rng)
    spot = rng.choice(spots)
    pool = FIRST_NAMES if spot[0] in FIRST_NAMES else LAST_NAMES
    near = [w for fact in state.facts for w in fact.sentence.strip(".").split()]
    name = rng.choice([w for w in near if w in pool] or pool)
    name = rng.choice((name, rng.choice(pool)))
    rest = right[spot.end() :]
    if rng.random() < 0.5:
        rest = rest.replace(spot[0], name)
    return right[: spot.start()] + name + rest


def _garbled(state: State, right: str, rng: random.Random) -> str:
    """A piece is missing or said twice."""
    pieces = re.findall(r"\s?[^\s]+|\s", right)
    at = rng.randrange(len(pieces))
    how = rng.choice(("drop", "twice", "cut"))
    if how == "cut":
        return "".join(pieces[: max(at, 1)])
    pieces[at : at + 1] = [] if how == "drop" else [pieces[at]] * 2
    return "".join(pieces)


def _guess(state: State, right: str, rng: random.Random) -> str:
    """An answer that nobody gave."""
    fact = rng.choice(state.facts or [Fact("", "", _somebody(rng))])
    thought = fact.sentence if fact.relation else "I need the answer."
    value = rng.choice((fact.value, _somebody(rng)))
    return turn(thought, "answer", value)


def _somebody(rng: random.Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def _needless(state: State, right: str, rng: random.Random) -> str:
    """A search for what is known."""
    fact = rng.choice(state.follow()[0])
    need = Need(fact.subject, fact.relation)
    told = rng.choice((fact.sentence, "That does not help."))
    return turn(f"{told} I need {need.phrase}.", "search", rng.choice(need.queries))


def _other_query(state: State, right: str, rng: random.Random) -> str:
    """A query that is too broad, too narrow, old or for something else."""
    need = state.follow()[1]
    assert need is not None  # else `slip` has nothing to search for
    relation = rng.choice([*RELATIONS])
    query = rng.choice(
        [
            state.question.text,
            state.question.start,
            need.subject,
            need.phrase,
            rng.choice(Need(need.subject, relation).queries),
            rng.choice(
                Need(state.question.start, state.question.relations[-1]).queries
            ),
            *state.queries[-1:],
        ]
    )
    thought = right[len("<think> ") : right.index(" </think>")]
    return turn(thought, "search", query)


def _misread(state: State, right: str, rng: random.Random) -> str:
    """Goes on from another fact that was found."""
    fact = rng.choice(state.facts)
    relation = RELATIONS[state.question.relations[-1]]
    if rng.random() < 0.5:
        return turn(fact.sentence, "answer", fact.value)
    need = Need(fact.value, relation.noun)
    query = rng.choice(need.queries)
    return turn(f"{fact.sentence} I need {need.phrase}.", "search", query)

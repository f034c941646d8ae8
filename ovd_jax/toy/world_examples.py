"""Examples for the tiny models of the made-up world.

The student and the environment agent's judgement are taught on worlds of their own, a
new one each step, so that they learn to read and not what is so; only the agent's part
as a search engine is taught the one world that runs are about.
"""

import random
from collections.abc import Callable, Iterator

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl
from ovd_jax.search.base import Query
from ovd_jax.search.observation import observation
from ovd_jax.search.simulator_prompts import ask, find_prompt, written
from ovd_jax.tasks.data.examples import Branch, Example, Piece, is_list_of
from ovd_jax.tasks.qa_prompts import PROMPTS as QA_PROMPTS
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.prompts import JUDGE_STEP
from ovd_jax.toy.world import Fact, Question, World
from ovd_jax.toy.world_turns import (
    State,
    hasty_turn,
    query_of,
    right_turn,
    score_turn,
    slip,
)

_MAX_TURNS = 5
_USEFUL = 0.85  # share of the searches in examples that find what is there
_FOUND = 2  # documents a search
_OTHERS = 2  # turns that are judged in place of one
_SCORE_WEIGHT = 3.0  # of a score in the loss; a word of a turn has 1


def information(facts: list[Fact]) -> str:
    """The observation of the documents."""
    return observation([fact.document for fact in facts], (), 1000)


def prompt(question: str) -> str:
    """The prompt of student and agent."""
    return QA_PROMPTS["world"].text.format(question=question)


def conversation(
    world: World, question: Question, rng: random.Random, write: Callable
) -> Iterator[tuple[State, str, list[Fact]]]:
    """(state, turn, observation) of each turn that `write(state)` writes."""
    state = State(question)
    for _ in range(_MAX_TURNS):
        text = write(state)
        query, facts = query_of(text), []
        if query is not None:
            useful = rng.random() < _USEFUL
            facts = (world.find if useful else world.noise)(query, rng, _FOUND)
            if rng.random() < 0.5:
                rng.shuffle(facts)
        yield state, text, facts
        if query is None:
            return
        state.read(query, facts)


def demonstration(world: World, rng: random.Random, *, hasty_share: float) -> Example:
    """A conversation that finds the answer, or, in so many, one that takes the first
    fact for it."""
    write = hasty_turn if rng.random() < hasty_share else right_turn
    pieces = []
    question = draw(world, rng)
    for _, text, facts in conversation(world, question, rng, write):
        pieces.append((text, 1.0))
        if facts:
            pieces.append((information(facts), 0.0))
    return Example(((prompt(question.text), 0.0), *pieces), ends=not facts)


def with_slips(
    world: World, question: Question, rng: random.Random
) -> Iterator[tuple[State, str, list[Fact]]]:
    """A conversation in which no, some or most turns are slips."""
    slips = rng.choice((0.0, 0.3, 0.6))

    def write(state):
        return slip(state, rng) if rng.random() < slips else right_turn(state)

    return conversation(world, question, rng, write)


def judgement(world: World, rng: random.Random) -> Example:
    """A conversation with slips, and the score of each turn and of others in its place.

    These hang on it as branches. The right turns are trained on as well.
    """
    question = draw(world, rng)
    pieces, branches, score = [(prompt(question.text), 0.0)], [], 0
    for state, text, facts in with_slips(world, question, rng):
        for other in (slip(state, rng) for _ in range(_OTHERS)):
            shown = ((other, 0.0), *judged(score_turn(state, other)))
            branches.append(Branch(len(pieces), shown))
        score = score_turn(state, text)
        pieces.append((text, float(score == 9)))
        branches.append(Branch(len(pieces), judged(score)))
        if facts:
            pieces.append((information(facts), 0.0))
    ends = not facts and score == 9
    return Example(tuple(pieces), ends=ends, branches=tuple(branches))


def read_conversations(path: str) -> list[Example]:
    """Judgements from JSONL rows with `question`, `turns`, what was read after each in
    `readings`, and their `scores`, 0 to 9. Raises UserError naming a row that is not
    so."""
    examples = []
    for where, row in read_jsonl(path):
        question, *columns = (
            row.get(name) for name in ("question", "turns", "readings", "scores")
        )
        turns, read, scores = columns
        if not (
            isinstance(question, str)
            and is_list_of(turns, str)
            and is_list_of(read, str)
            and is_list_of(scores, int)
            and len(turns) == len(read) == len(scores)
            and all(0 <= score <= 9 for score in scores)
        ):
            raise UserError(
                f"{where} is no row with question, turns, readings and a score 0 to 9 "
                "of each turn; launch/make_judge_data.py writes such rows."
            )
        pieces, branches = [(prompt(question), 0.0)], []
        for text, reading, score in zip(turns, read, scores, strict=True):
            pieces.append((text, 0.0))
            branches.append(Branch(len(pieces), judged(score)))
            if reading:
                pieces.append((reading, 0.0))
        examples.append(Example(tuple(pieces), branches=tuple(branches)))
    if not examples:
        raise UserError(f"{path} holds no judged conversations.")
    return examples


def judged(score: int) -> tuple[Piece, ...]:
    """The question for a score, and the score."""
    return (JUDGE_STEP, 0.0), (str(score), _SCORE_WEIGHT)


def simulation(world: World, rng: random.Random) -> Example:
    """A query and the documents of the world's search engine."""
    state = State(draw(world, rng))
    if rng.random() < 0.5:  # after a first search
        state.read("", world.find(right_turn(state), rng, _FOUND))
    text = slip(state, rng) if rng.random() < 0.2 else right_turn(state)
    need = state.follow()[1]
    query = query_of(text) or rng.choice(
        need.queries if need else [state.question.start]
    )
    useful = rng.random() < 0.8
    facts = (world.find if useful else world.noise)(query, rng, _FOUND)
    asked = ask(
        find_prompt("world"), Query(query), count=_FOUND, noisy=not useful,
        special_tokens=(),
    )  # fmt: skip
    documents = written([fact.document for fact in facts])
    return Example(((asked, 0.0), (documents, 1.0)))


def draw(world: World, rng: random.Random, split: str = "train") -> Question:
    """A question of one or two hops, equally often."""
    return rng.choice(world.questions(split, rng.choice((1, 2))))


def world_examples(
    *,
    seed: int,
    judged_share: float,
    simulated_share: float,
    hasty_share: float,
    judged_data: str = "",
) -> Callable[[int, int], list[Example]]:
    """`(step, count) -> examples`: shares of judgements and simulated searches, and for
    the rest demonstrations.

    Half of the judgements are of the rows in the file `judged_data`, which
    launch/make_judge_data.py writes, if it is given.
    """
    known = World()
    rows = read_conversations(judged_data) if judged_data else []

    def one(fresh: World, rng: random.Random) -> Example:
        kind = rng.random()
        if rows and kind < judged_share / 2:
            return rng.choice(rows)
        if kind < judged_share:
            return judgement(fresh, rng)
        if kind < judged_share + simulated_share:
            return simulation(known, rng)
        return demonstration(fresh, rng, hasty_share=hasty_share)

    def examples(step: int, count: int) -> list[Example]:
        rng = random.Random(f"world {seed} {step}")
        fresh = World(f"examples {seed} {step}")
        return [one(fresh, rng) for _ in range(count)]

    return examples


def labelled_turns(world: World, count: int) -> tuple[list[ScoreRequest], list[int]]:
    """Every turn of `count` held-out conversations, with its exact score."""
    rng = random.Random(f"audit {world.seed}")
    requests, exact = [], []
    for _ in range(count):
        question = draw(world, rng, "eval")
        previous = ""
        for state, text, facts in with_slips(world, question, rng):
            requests.append(ScoreRequest(question.text, previous, text, whole=False))
            exact.append(score_turn(state, text))
            previous += text + information(facts)
    return requests, exact

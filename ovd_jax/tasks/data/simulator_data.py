"""Rows that teach a model to be a search engine: queries, useful and noisy documents.

Queries come from recorded searches, or are made of a corpus' own passages. Useful is
what was found in a run that ended well, or what holds the answer, with what was found
beside it; noisy are others that share words with the query and do not hold it.
"""

import dataclasses
import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl
from ovd_jax.search.base import Document, Query
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.simulator_prompts import WORDS, SimulatorPrompt, ask, written
from ovd_jax.search.words import words_of
from ovd_jax.tasks.grading.qa_metrics import holds

_LOOKED_AT = 20  # passages that BM25 offers as noise
_QUERY_WORDS = 6  # of a query that is made of a passage


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A recorded run of a search agent."""

    question: str
    answers: tuple[str, ...]
    right: bool
    steps: tuple[Mapping[str, Any], ...]  # think, search, documents, answer

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """(thought, query) of each search."""
        thought, turns = "", []
        for step in self.steps:
            if step["type"] == "think":
                thought = step["text"]
            elif step["type"] == "search":
                turns.append((thought, step["query"]))
        return tuple(turns)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A query with documents of both kinds; either may be missing."""

    query: Query
    useful: tuple[Document, ...]
    noisy: tuple[Document, ...]


def load_recorded(paths: Sequence[str | Path]) -> list[Recorded]:
    """Runs from JSONL rows of `question`, `answers`, `em` (whether it ended well) and
    `steps`. Raises UserError naming a row without them."""
    runs = []
    for path in paths:
        for where, row in read_jsonl(path):
            try:
                steps = tuple({"type": step["type"], **step} for step in row["steps"])
                fields = (row["question"], tuple(row["answers"]), bool(row["em"]))
                runs.append(run := Recorded(*fields, steps))
                run.turns  # noqa: B018 raises for a step without its fields
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"{where} is no recorded run ({error!r}); it needs "
                    "question, answers, em and steps of think (text), search (query), "
                    "documents (ids) and answer (text)."
                ) from None
    return runs


def is_held_out(question: str, share: float) -> bool:
    """True if a question is kept from training, by its hash only."""
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def recorded_pairs(runs: Sequence[Recorded], engine: Bm25) -> Iterator[Pair]:
    """A pair for each search of each run whose documents `engine` has."""
    passages = engine.by_id()
    for run in runs:
        query = None
        for step in run.steps:
            if step["type"] == "search":
                query = Query(step["query"], run.question, run.answers)
            elif step["type"] == "documents" and query is not None:
                found = [passages[i] for i in step["ids"] if i in passages]
                found.sort(key=lambda d: not holds(d.text, run.answers))
                useful = found and (run.right or holds(found[0].text, run.answers))
                others = noise(engine, query, found)
                yield Pair(query, (*found, *others) if useful else (), others)
                query = None


def corpus_pairs(engine: Bm25, count: int, *, seed: int) -> Iterator[Pair]:
    """`count` pairs whose queries are made of passages: the title and some words."""
    rng = random.Random(f"simulator-{seed}")
    for _ in range(count):
        passage = engine[rng.randrange(len(engine))]
        text = f"{passage.title} {_some_words(passage, rng)}".strip()
        query = Query(text, f"What about {passage.title}?", (passage.title,))
        others = [d for d in engine.best(text, _LOOKED_AT) if d.id != passage.id]
        same = [d for d in others if d.title == passage.title]
        noisy = noise(engine, query, [passage])
        yield Pair(query, (passage, *same, *noisy), noisy)


def _some_words(passage: Document, rng: random.Random) -> str:
    words = list(dict.fromkeys(words_of(passage.text[:1000])))
    picked = sorted(rng.sample(range(len(words)), min(_QUERY_WORDS, len(words))))
    return " ".join(words[i] for i in picked)


def noise(
    engine: Bm25, query: Query, found: Sequence[Document]
) -> tuple[Document, ...]:
    """BM25's other results for the query, without title or answer of `found`."""
    titles = {document.title for document in found}
    return tuple(
        document
        for document in engine.best(query.text, _LOOKED_AT)
        if document.title not in titles
        and not holds(f"{document.title} {document.text}", query.answers)
    )


def rows(
    pairs: Sequence[Pair],
    prompt: SimulatorPrompt,
    *,
    count: int,
    told_share: float,
    seed: int,
) -> Iterator[dict[str, str]]:
    """A useful and a noisy row of `count` documents for each pair that has both kinds,
    `told_share` of them with question and answer; so both are equally many."""
    for index, pair in enumerate(pairs):
        if min(len(pair.useful), len(pair.noisy)) < count:
            continue
        rng = random.Random(f"rows-{seed}-{index}")
        told = rng.random() < told_share
        query = pair.query if told else Query(pair.query.text)
        for noisy in (False, True):
            documents = (pair.noisy if noisy else pair.useful)[:count]
            shown = [
                dataclasses.replace(d, text=excerpt(d.text, pair.query.answers))
                for d in documents
            ]
            asked = ask(prompt, query, count=len(shown), noisy=noisy, special_tokens=())
            yield {"prompt": asked, "completion": written(shown)}


def excerpt(text: str, golds: Sequence[str], words: int = WORDS) -> str:
    """About `words` words of a text, with a gold among them if there is one: from the
    beginning of a sentence where that fits."""
    parts = text.split()
    if len(parts) <= words:
        return " ".join(parts)
    starts = [0] + [
        i + 1 for i, part in enumerate(parts[:-1]) if re.search(r"[.!?]$", part)
    ]
    starts += list(range(0, len(parts) - words + 1, max(1, words // 3)))
    for start in starts:
        window = " ".join(parts[start : start + words])
        if holds(window, golds):
            return window
    return " ".join(parts[:words])

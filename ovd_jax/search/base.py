"""What a search engine is asked and what it answers, however it finds it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol


class SearchError(RuntimeError):
    """The engine gave no usable answer; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Document:
    """One passage found; its text is a stranger's: see `search/observation.py`."""

    title: str
    text: str
    id: str = ""  # in its corpus; empty for a made-up document
    score: float = 0.0  # the engine's own; only its order means anything


@dataclasses.dataclass(frozen=True)
class Query:
    """What is looked for.

    `question` and `answers` are for a simulator, in training only: nothing that
    evaluates may fill them in.
    """

    text: str
    question: str = ""
    answers: tuple[str, ...] = ()  # any one of them is right


class SearchBackend(Protocol):
    """A search engine.

    `Search` is one for any `Engine`; to add an engine, see examples/own_engine.py.
    """

    @property
    def identity(self) -> Mapping:
        """All that decides what is found but query and seed, as JSON."""
        ...

    def begin(self, step: int) -> None:
        """What is searched from now on belongs to this step of training."""
        ...

    def search(
        self, queries: Sequence[Query], *, seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """What the engine finds for each query, the best first, at most its top k.

        A function of the query and, where documents are made up, of the seed beside it:
        never of the other queries. Raises SearchError.
        """
        ...

    def view(self) -> "SearchBackend":
        """The same engine for another user, whose searches are counted apart."""
        ...

    def metrics(self) -> dict[str, float]:
        """What was asked since the last call, and the seconds waited for it."""
        ...

    def close(self) -> None:
        """Ends connections; a search that waits for an engine raises SearchError."""
        ...

"""The queries to a search engine and its answers, whatever the engine."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol


class SearchError(RuntimeError):
    """The engine gave no usable answer; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Document:
    """A passage. Its text is untrusted: see `search/observation.py`."""

    title: str
    text: str
    id: str = ""  # in its corpus; empty for a made-up document
    score: float = 0.0  # the engine's own; only its order means anything


@dataclasses.dataclass(frozen=True)
class Query:
    """A search query.

    `question` and `answers` are for a simulator, in training only: an evaluation must
    leave them empty.
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
        """Everything that decides the documents besides query and seed, as JSON."""
        ...

    def begin(self, step: int) -> None:
        """Announces the training step of the following searches."""
        ...

    def search(
        self, queries: Sequence[Query], *, seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """The documents of each query, best first, at most the engine's top k.

        They depend on the query and, if documents are made up, on its seed, never on
        other queries. Raises SearchError.
        """
        ...

    def view(self) -> "SearchBackend":
        """The same engine with separate counts."""
        ...

    def metrics(self) -> dict[str, float]:
        """Counts since the last call, and the seconds waited."""
        ...

    def close(self) -> None:
        """Ends connections; a search that waits for an engine raises SearchError."""
        ...

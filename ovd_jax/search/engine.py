"""A search backend: an engine with a cache and a policy for failures."""

import copy
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from ovd_jax.client.cache import DiskCache
from ovd_jax.client.reminder import Reminder
from ovd_jax.errors import UserError
from ovd_jax.search.base import Document, Query, SearchError

POLICIES = ("wait", "empty", "fail")
_log = logging.getLogger(__name__)
_PAUSE = 5.0  # seconds before an engine that is away is retried


class Away(SearchError):
    """No usable answer this time; a retry may succeed."""

    def __init__(self, message: str, *, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after  # seconds that the engine asked for


class Engine(Protocol):
    """A source of documents.

    It may also have `view`, `begin`, `metrics` and `close` of `SearchBackend`.
    """

    @property
    def identity(self) -> Mapping:
        """Everything that decides the documents besides query and seed, as JSON."""
        ...

    @property
    def draws(self) -> bool:
        """Whether documents depend on the seed."""
        ...

    def find(
        self, queries: Sequence[Query], seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """The documents of each query, drawn from its seed. Raises SearchError."""
        ...


class Nothing:
    """An engine without documents."""

    identity: Mapping = {"engine": "none"}
    draws = False

    def find(
        self, queries: Sequence[Query], seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """No documents."""
        return [() for _ in queries]


class Search:
    """An engine with a cache on disk and a policy; the `SearchBackend` of all of ours.

    Args:
        engine: where documents come from.
        cache: keeps what was found, by query, seed and the engine's identity.
        on_failure: `wait` asks one that is away again until it answers, `empty` finds
            nothing and counts it, `fail` raises the SearchError.
        with_golds: whether the engine sees question and answers beside the query: in
            training only. They are taken out here, whoever filled them in.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        cache: DiskCache | None = None,
        on_failure: str = "fail",
        with_golds: bool = False,
    ):
        if on_failure not in POLICIES:
            raise UserError(
                f"search.on_failure {on_failure!r} is not one of {', '.join(POLICIES)}."
            )
        self.engine = engine
        self._cache = cache
        self._on_failure = on_failure
        self._with_golds = with_golds
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._counts, self._seconds = Counter(), 0.0
        self._reminder = Reminder()

    def view(self) -> "Search":
        """The same engine and cache with separate counts."""
        view = copy.copy(self)
        if view_engine := getattr(self.engine, "view", None):
            view.engine = view_engine()
        view._lock, view._counts, view._seconds = threading.Lock(), Counter(), 0.0
        return view

    def search(
        self, queries: Sequence[Query], *, seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """The documents of each query; equal queries are sent once, if their seeds are
        equal or the engine does not draw."""
        if not self._with_golds:
            queries = [Query(query.text) for query in queries]
        if not self.engine.draws:
            seeds = [0] * len(queries)
        asked = list(zip(queries, seeds, strict=True))
        started = time.perf_counter()
        kept = {pair: self._kept(*pair) for pair in asked}
        found = {
            pair: documents for pair, documents in kept.items() if documents is not None
        }
        missing = [pair for pair in kept if pair not in found]
        self._count(queries=len(asked), cache_hits=len(found))
        if missing:
            found |= zip(missing, self._find(missing), strict=True)
        with self._lock:
            self._seconds += time.perf_counter() - started
        answers = [found[pair] for pair in asked]
        self._count(empty=sum(not documents for documents in answers))
        return answers

    @property
    def identity(self) -> Mapping:
        """The engine's identity."""
        return self.engine.identity

    def begin(self, step: int) -> None:
        """Announces the training step to an engine whose documents depend on it."""
        if begin := getattr(self.engine, "begin", None):
            begin(step)

    def metrics(self) -> dict[str, float]:
        """Counts and seconds since the last call; seconds are summed over threads."""
        with self._lock:
            counts, seconds = self._counts, self._seconds
            self._counts, self._seconds = Counter(), 0.0
        names = ("queries", "cache_hits", "empty", "failures")
        own = {f"search_{name}": float(counts[name]) for name in names}
        metrics = getattr(self.engine, "metrics", dict)
        return own | {"seconds_search": seconds} | metrics()

    def close(self) -> None:
        """Ends the engine's connections, and any waiting for an engine that is away."""
        self._closed.set()
        if close := getattr(self.engine, "close", None):
            close()

    def _count(self, **amounts: int) -> None:
        with self._lock:
            self._counts.update(amounts)

    def _key(self, query: Query, seed: int) -> dict:
        fields = {"query": query.text, "question": query.question}
        fields |= {"answers": list(query.answers), "seed": seed}
        return {"engine": self.engine.identity, **fields}

    def _kept(self, query: Query, seed: int) -> tuple[Document, ...] | None:
        kept = self._cache.get(self._key(query, seed)) if self._cache else None
        return None if kept is None else tuple(Document(**x) for x in kept["documents"])

    def _find(self, pairs) -> list[tuple[Document, ...]]:
        try:
            found = self._persist(*zip(*pairs, strict=True))
        except SearchError as error:
            self._count(failures=len(pairs))
            if self._on_failure != "empty":
                raise
            _log.warning("A search found nothing: %s", error)
            return [()] * len(pairs)
        if self._cache is not None:
            for pair, documents in zip(pairs, found, strict=True):
                value = {"documents": [vars(document) for document in documents]}
                self._cache.put(self._key(*pair), value)
        return found

    def _persist(self, queries, seeds) -> list[tuple[Document, ...]]:
        while True:
            try:
                return self.engine.find(queries, seeds)
            except Away as error:
                if self._on_failure != "wait":
                    raise
                if self._reminder.due():  # all threads wait for the same engine
                    _log.warning("The run waits for its search engine: %s", error)
            if self._closed.wait(_PAUSE):
                raise SearchError("The search ended before its engine was back.")

"""A search backend: an engine, what it found before, and what happens if it fails."""

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
_PAUSE = 5.0  # seconds until an engine that is away is asked again


class Away(SearchError):
    """No usable answer this time; the same query may have one later."""

    def __init__(self, message: str, *, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after  # seconds that the engine asked for


class Engine(Protocol):
    """Where documents come from.

    It may have `view`, `begin`, `metrics` and `close` of `SearchBackend` too.
    """

    @property
    def identity(self) -> Mapping:
        """All that documents depend on but query and seed, as JSON."""
        ...

    @property
    def draws(self) -> bool:
        """Whether documents depend on the seed."""
        ...

    def find(
        self, queries: Sequence[Query], seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """Documents for each query, drawn from the seed beside it. Raises
        SearchError."""
        ...


class Nothing:
    """The engine that never finds anything."""

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
        """The same engine and cache for another user, whose searches are counted
        apart."""
        view = copy.copy(self)
        if view_engine := getattr(self.engine, "view", None):
            view.engine = view_engine()
        view._lock, view._counts, view._seconds = threading.Lock(), Counter(), 0.0
        return view

    def search(
        self, queries: Sequence[Query], *, seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """What the engine finds for each query; equal ones, of equal seeds where the
        engine draws, are put once."""
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
        """The engine's: all that documents depend on but query and seed."""
        return self.engine.identity

    def begin(self, step: int) -> None:
        """Tells an engine whose documents change with training which step it is."""
        if begin := getattr(self.engine, "begin", None):
            begin(step)

    def metrics(self) -> dict[str, float]:
        """Counts and seconds since the last call; the seconds of threads add up."""
        with self._lock:
            counts, seconds = self._counts, self._seconds
            self._counts, self._seconds = Counter(), 0.0
        names = ("queries", "cache_hits", "empty", "failures")
        own = {f"search_{name}": float(counts[name]) for name in names}
        metrics = getattr(self.engine, "metrics", dict)
        return own | {"seconds_search": seconds} | metrics()

    def close(self) -> None:
        """Ends the engine's connections, and the waiting for one that is away."""
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

"""Bounds the requests in flight, and chooses the server of the next one."""

import asyncio
import copy
import heapq
import itertools
import time
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

_START = 8  # requests in flight at first


class Limit:
    """An adaptive bound: additive increase, multiplicative decrease.

    It grows by one with each answer until the first sign of congestion. Each sign
    halves it; then it grows by one a round of answers. An answer after more than
    `slow_s` seconds is a sign.
    """

    def __init__(self, max_concurrency: int, *, slow_s: float):
        self.value = float(min(_START, max_concurrency))
        self._max_concurrency = max_concurrency
        self._slow_s = slow_s
        self._halved_at: float | None = None

    def answered(self, *, sent: float, now: float) -> None:
        """Records an answer to a request of the time `sent`."""
        if now - sent > self._slow_s:
            self.congested(sent=sent, now=now)
            return
        growth = 1.0 if self._halved_at is None else 1 / self.value
        self.value = min(self._max_concurrency, self.value + growth)

    def congested(self, *, sent: float, now: float) -> None:
        """Halves the bound, once for all requests in flight at the time."""
        if self._halved_at is None or sent >= self._halved_at:
            self.value = max(1.0, self.value / 2)
            self._halved_at = now


class Place(Protocol):
    """A server that a pool hands out."""

    limit: Limit
    outstanding: int
    open: bool  # True if it takes requests
    cooldown_until: float  # after an error, on the clock of time.monotonic


P = TypeVar("P", bound=Place)


class Pool(Generic[P]):
    """Hands out places at servers to waiting requests, by priority.

    Requests of one `affinity`, any number, share a beginning that a server caches, so
    they wait for the same server. A server with room takes the requests of others only
    if those are full, cooling down or closed.
    """

    def __init__(self, places: Sequence[P]):
        self._places = places
        self._queues = [[] for _ in places]  # heaps of (priority, tick, future)
        self._ticks = itertools.count()

    async def take(self, *, priority: str, affinity: int) -> P:
        """A place for one request; the lowest `priority` is first. Raises the error
        that `fail` is given while it waits."""
        future = asyncio.get_running_loop().create_future()
        queue = self._queues[affinity % len(self._queues)]
        heapq.heappush(queue, (priority, next(self._ticks), future))
        self.hand_out()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not (future.cancelled() or future.exception()):
                self.give_back(future.result())
            raise

    def give_back(self, place: P) -> None:
        """Releases a place."""
        place.outstanding -= 1
        self.hand_out()

    def fail(self, error: Exception) -> None:
        """Raises a copy of `error` in all waiting requests."""
        for queue in self._queues:
            for *_, future in queue:
                if not future.done():
                    future.set_exception(copy.copy(error))
            queue.clear()

    def hand_out(self) -> None:
        """Gives free places to waiting requests; call it when a server opens."""
        for place, queue in zip(self._places, self._queues, strict=True):
            while queue and place in self._free():
                give(place, queue)
        while any(self._queues) and (free := self._free()):
            give(
                min(free, key=lambda place: place.outstanding),
                max(self._queues, key=len),
            )

    def _free(self) -> list[P]:
        now = time.monotonic()
        there = [place for place in self._places if place.open]
        awake = [place for place in there if place.cooldown_until <= now]
        return [
            place
            for place in awake or there
            if place.outstanding < int(place.limit.value)
        ]


def give(place: Place, queue: list) -> None:
    """Gives a place to the first waiting request of a queue that was not cancelled."""
    *_, future = heapq.heappop(queue)
    if not future.done():
        place.outstanding += 1
        future.set_result(place)

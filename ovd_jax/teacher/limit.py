"""How many requests may be out at once, and which server takes the next one."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Sequence
from typing import Protocol

_START = 8  # requests out at first
_LOYALTY = 4  # requests more that a problem's own server may have out


class Limit:
    """A bound that follows the server, by additive increase and multiplicative
    decrease.

    It grows by one with each answer until the first sign of congestion; each sign
    halves it, and from then on it grows by one a round of answers. An answer after more
    than `slow_s` seconds is such a sign.
    """

    def __init__(self, most: int, *, slow_s: float):
        self.value = float(min(_START, most))
        self._most = most
        self._slow_s = slow_s
        self._halved_at = None

    def answered(self, *, sent: float, now: float) -> None:
        """Takes note of an answer to a request of the time `sent`."""
        if now - sent > self._slow_s:
            self.congested(sent=sent, now=now)
            return
        growth = 1.0 if self._halved_at is None else 1 / self.value
        self.value = min(self._most, self.value + growth)

    def congested(self, *, sent: float, now: float) -> None:
        """Halves the bound, once for all requests that were out at the time."""
        if self._halved_at is None or sent >= self._halved_at:
            self.value = max(1.0, self.value / 2)
            self._halved_at = now


class Place(Protocol):
    """What a pool hands out."""

    limit: Limit
    outstanding: int
    rests_until: float  # after an error, on the clock of time.monotonic


class Pool:
    """Hands out places at servers: fewest requests out first, waiting ones in order.

    A request names its `home`, any number: those of one home share a beginning, which
    their server keeps in its cache, so they go to the same one unless it is busier.
    """

    def __init__(self, places: Sequence[Place]):
        self._places = places
        self._waiting: list[tuple] = []  # a heap of (order, tick, home, future)
        self._ticks = itertools.count()

    async def take(self, *, order: int, home: int) -> Place:
        """A place for one request, to be given back; the lowest `order` is first."""
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (order, next(self._ticks), home, future))
        self._hand_out()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give_back(future.result())
            raise

    def give_back(self, place: Place) -> None:
        """Frees a place that was taken."""
        place.outstanding -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            *_, home, future = self._waiting[0]
            place = None if future.done() else self._choose(home)
            if place is None and not future.done():
                return
            heapq.heappop(self._waiting)
            if place is not None:
                place.outstanding += 1
                future.set_result(place)

    def _choose(self, home: int) -> Place | None:
        now = time.monotonic()
        awake = [place for place in self._places if place.rests_until <= now]
        own = self._places[home % len(self._places)]
        free = [
            place
            for place in awake or self._places
            if place.outstanding < int(place.limit.value)
        ]
        if not free:
            return None
        return min(free, key=lambda p: p.outstanding - _LOYALTY * (p is own))

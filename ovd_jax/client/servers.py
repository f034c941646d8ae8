"""Equal servers that share requests."""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

from ovd_jax.client.endpoint import Endpoint, WrongModel
from ovd_jax.client.limit import Pool
from ovd_jax.client.replies import Unavailable
from ovd_jax.errors import TeacherError, UserError
from ovd_jax.text import one_line

_log = logging.getLogger(__name__)
_REST = 0.5  # seconds in which a failed server gets as little as possible
_GRACE = 5.0  # seconds that a start waits for others after the first server


class Servers:
    """Endpoints with one model. Requests go to the open ones; others are verified in
    the background, so that a server that hangs delays nothing. Use all methods in one
    event loop."""

    def __init__(self, endpoints: Iterable[Endpoint], *, name_knob: str):
        self.endpoints = list(endpoints)
        self._name_knob = name_knob  # the knob that names the model
        self._pool = Pool(self.endpoints)
        self._look_ups: dict[Endpoint, asyncio.Task] = {}

    def reverify(self) -> None:
        """Makes all servers verify their model before their next requests."""
        for endpoint in self.endpoints:
            endpoint.reverify()

    async def close(self) -> None:
        """Ends all connections."""
        for endpoint in self.endpoints:
            await endpoint.close()

    async def use(
        self, ask: Callable[[Endpoint], Awaitable], priority: str, affinity: int
    ) -> object:
        """Returns what `ask` does for the first open server with room; `priority` and
        `affinity` are those of `Pool`. Raises what `ask` raises, and Unavailable if no
        server is there."""
        self._look_around()
        endpoint = await self._pool.take(priority=priority, affinity=affinity)
        sent = time.monotonic()
        try:
            answer = await ask(endpoint)
        except Unavailable as error:
            now = time.monotonic()
            if error.congested:
                endpoint.limit.congested(sent=sent, now=now)
            endpoint.failed(sent=sent, now=now)
            if error.lost:
                self._look_around()  # others may wait for this server
            raise
        finally:
            self._pool.give_back(endpoint)
        endpoint.limit.answered(sent=sent, now=time.monotonic())
        endpoint.answered()
        return answer

    async def find_one(self) -> None:
        """Returns once a server is open. Raises the error of the last one if all
        fail."""
        waiting, error = set(self._look_around()), None
        while waiting and not self._any_open():
            done, waiting = await asyncio.wait(
                waiting, return_when=asyncio.FIRST_COMPLETED
            )
            error = next((task.result() for task in done if task.result()), error)
        if error and not self._any_open():
            raise error

    async def meet(self) -> None:
        """Finds the model's name, the same at all servers; a server that is not there
        soon after the first may join later.

        Raises UserError if it is not the requested model.
        """
        try:
            await self.find_one()
        except WrongModel as error:
            raise UserError(f"{error}; set config.{self._name_knob}.") from None
        if late := list(self._look_ups.values()):
            await asyncio.wait(late, timeout=_GRACE)
        (name, *others) = dict.fromkeys(e.name for e in self.endpoints if e.known)
        if others:
            raise UserError(
                f"The servers differ: {one_line(', '.join([name, *others]))}."
            )
        for endpoint in self.endpoints:
            endpoint.name = name
            if not endpoint.open:
                _log.warning("The run starts without %s: no answer.", endpoint.url)
                continue
            weights = f" ({endpoint.weights})" if endpoint.weights else ""
            model = one_line(f"{name}{weights}")
            print(f"{endpoint.url} serves {model}.", file=sys.stderr)

    def _any_open(self) -> bool:
        return any(endpoint.open for endpoint in self.endpoints)

    def _look_around(self) -> list[asyncio.Task]:
        """Starts to verify each server that is not open. Returns all verifications."""
        now, nobody = time.monotonic(), not self._any_open()
        for endpoint in self.endpoints:
            idle = not endpoint.open and endpoint not in self._look_ups
            if idle and (nobody or endpoint.cooldown_until <= now):
                look_up = asyncio.create_task(self._look_up(endpoint))
                self._look_ups[endpoint] = look_up
        return list(self._look_ups.values())

    async def _look_up(self, endpoint: Endpoint) -> TeacherError | None:
        """The error if the server does not serve the model, else None."""
        error = None
        try:
            await endpoint.identify()
        except TeacherError as found:
            error = found
            endpoint.cooldown_until = time.monotonic() + _REST
        finally:
            del self._look_ups[endpoint]
        hopeless = not isinstance(error, Unavailable)
        if error and (hopeless or not (self._look_ups or self._any_open())):
            self._pool.fail(error)
        self._pool.hand_out()
        return error

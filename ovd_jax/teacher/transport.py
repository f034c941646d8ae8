"""Requests to one or several servers: concurrency, retries, and what comes after."""

import asyncio
import concurrent.futures
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import tenacity

from ovd_jax.errors import UserError
from ovd_jax.teacher.accounting import Accounting
from ovd_jax.teacher.endpoint import Endpoint, WrongModel
from ovd_jax.teacher.limit import Pool
from ovd_jax.teacher.replies import Reply, Unavailable

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries
_LONGEST_RETRY_AFTER = 120.0  # seconds; a server may ask for an hour
_POLL = 2.0  # seconds between two looks for a server that is away
_REMIND = 60.0  # seconds between two messages while it is


class Transport:
    """Runs asynchronous jobs in a thread of its own and posts their requests.

    Equal servers, one at each of `urls`, share the work. A request that fails is tried
    `retries` times more, wherever there is room; then, if `wait`, once a server is
    back, and so on for ever; else Unavailable is raised.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        name: str,
        key: str | None,
        timeout_s: float,
        retries: int,
        wait: bool,
        most: int,
        accounting: Accounting,
    ):
        self.endpoints = [
            Endpoint(url, name=name, key=key, timeout_s=timeout_s, most=most)
            for url in urls
        ]
        self.accounting = accounting
        self._pool = Pool(self.endpoints)
        self._retries = retries
        self._wait = wait
        self._rng = random.Random()  # of pauses alone: no result depends on it
        self._return: asyncio.Task | None = None
        self._running: set[concurrent.futures.Future] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="teacher", daemon=True
        )
        self._thread.start()

    def run(self, jobs: Sequence[Callable[[], Awaitable]]) -> list:
        """The results of all jobs, in order; the first error ends the others."""
        return self.begin(jobs).result()

    def begin(
        self, jobs: Sequence[Callable[[], Awaitable]], then: Callable = list
    ) -> "Pending":
        """Starts the jobs, beside those that run already; what comes of them is
        `then(results)`.

        Where none does, servers are asked first whether they still serve the same: one
        may have been started anew since the last call, unseen.
        """
        if not self._running:
            for endpoint in self.endpoints:
                endpoint.doubt()
        future = asyncio.run_coroutine_threadsafe(gather(jobs), self._loop)
        pending = Pending(future, then, self.accounting)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return pending

    def close(self) -> None:
        """Ends the thread and its connections."""
        self.run([endpoint.close for endpoint in self.endpoints])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def connect(self) -> None:
        """Finds out which model is served; raises UserError where it is not the one
        that was asked for."""
        try:
            await self._identify_any()
        except WrongModel as error:
            raise UserError(f"{error}; set config.teacher.served_name.") from None
        except Unavailable as error:
            if not self._wait:
                raise
            await self._until_back(error)

    async def post(
        self,
        path: str,
        body: Mapping,
        *,
        order: str,
        home: int,
        check: Callable[[Reply], None],
    ) -> Reply:
        """The reply to a request for the model; `check` raises Unavailable for one that
        is of no use, `order` and `home` are those of `Pool`."""
        return await self._persist(self._try, path, body, order, home, check)

    async def fetch(self, path: str):
        """The decoded body at a path of a server outside its API; None where it has no
        such thing."""
        return await self._persist(self.endpoints[0].get, path)

    async def _persist(self, ask, *arguments):
        while True:
            try:
                async for attempt in self._attempts():
                    with attempt:
                        return await ask(*arguments)
            except Unavailable as error:
                if not self._wait:
                    raise
                await self._until_back(error)

    def _attempts(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=self._pause,
            before_sleep=lambda _: self.accounting.count(retries=1),
            reraise=True,
        )

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next try: what the server asked for, or twice as long each
        time, less up to half of it, so that not all come back at once."""
        asked = state.outcome.exception().retry_after
        if asked is not None:
            return min(asked, _LONGEST_RETRY_AFTER) * self._rng.uniform(1.0, 1.1)
        pause = _FIRST_PAUSE * 2 ** min(state.attempt_number - 1, 16)
        return min(pause, _LONGEST_PAUSE) * self._rng.uniform(0.5, 1.0)

    async def _try(self, path, body, order, home, check) -> Reply:
        endpoint = await self._pool.take(order=order, home=home)
        sent = time.monotonic()
        try:
            named = {"model": endpoint.name, **body}
            reply = await endpoint.post(path, named, check)
        except Unavailable as error:
            now = time.monotonic()
            if error.congested:
                endpoint.limit.congested(sent=sent, now=now)
            if error.lost:
                endpoint.rests_until = now + _FIRST_PAUSE
            raise
        finally:
            self._pool.give_back(endpoint)
        now = time.monotonic()
        endpoint.limit.answered(sent=sent, now=now)
        self.accounting.answered(
            now - sent, tokens_in=reply.tokens_in, tokens_out=reply.tokens_out
        )
        return reply

    async def _until_back(self, error: Unavailable) -> None:
        """Returns once a server with the right model is there; all requests that wait
        share one look-out."""
        if self._return is None or self._return.done():
            self._return = asyncio.create_task(self._look_out(error))
        await asyncio.shield(self._return)

    async def _look_out(self, error: Unavailable) -> None:
        started, reminded = time.monotonic(), -_REMIND
        while True:
            if time.monotonic() - started - reminded >= _REMIND:
                reminded = time.monotonic() - started
                _log.warning(
                    "The run waits for its teacher (for %.0f s now). %s. It goes on as "
                    "soon as the same model answers there; Ctrl-C ends it.",
                    reminded,
                    error,
                )
            await asyncio.sleep(_POLL * self._rng.uniform(0.5, 1.0))
            try:
                await self._identify_any()
            except Unavailable as again:
                error = again
                continue
            waited = time.monotonic() - started
            _log.warning("The teacher is back after %.0f s.", waited)
            return

    async def _identify_any(self) -> None:
        """Raises the last error where no server has the model."""
        found = await asyncio.gather(
            *[endpoint.identify() for endpoint in self.endpoints],
            return_exceptions=True,
        )
        errors = [error for error in found if error is not None]
        if len(errors) == len(self.endpoints):
            raise errors[-1]
        for error in errors:
            if not isinstance(error, Unavailable):
                raise error
        (name, *others) = {e.name for e in self.endpoints if e.name}
        if others:
            raise UserError(f"The servers differ: {name}, {', '.join(others)}.")
        for endpoint in self.endpoints:
            endpoint.name = name


class Pending:
    """Jobs that run; to be waited for or cancelled."""

    def __init__(
        self, future: concurrent.futures.Future, then: Callable, accounting: Accounting
    ):
        self._future = future
        self._then = then
        self._accounting = accounting
        accounting.asked()
        future.add_done_callback(lambda _: accounting.done())

    def result(self) -> list:
        """`then` of the results in order; raises the first error. An interrupt ends
        the jobs."""
        with self._accounting.waiting():
            try:
                results = self._future.result()
            except BaseException:
                self.cancel()
                raise
        return self._then(results)

    def cancel(self) -> None:
        """Ends the jobs that are not done."""
        self._future.cancel()


async def gather(jobs: Sequence[Callable[[], Awaitable]]) -> list:
    """The results of all jobs; none of them is left running."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

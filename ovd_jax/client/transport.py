"""Requests to one or several servers, with concurrency and retries."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import copy
import functools
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import tenacity

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.endpoint import Endpoint
from ovd_jax.client.pending import Pending, gather
from ovd_jax.client.reminder import Reminder
from ovd_jax.client.replies import Refused, Reply, Unavailable
from ovd_jax.client.servers import Servers

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries
_LONGEST_RETRY_AFTER = 120.0  # seconds; a server may ask for an hour
_LEAST_RETRIES = 2  # while a program starts: a single fault decides nothing
_TRIALS = 5  # of a request whose fields the server may not know
_ROLES = {  # what the user calls the model that a knob names
    "continuer.served_name": "continuer",
    "search.served_name": "search engine",
    "engine_served_name": "student",
}
_POLL = 2.0  # seconds between two checks for a server that is away


class Transport:
    """Runs asynchronous jobs in a thread of its own and posts their requests.

    Equal servers, one at each of `urls`, share the work. A request that fails is tried
    `retries` times more, wherever there is room; then, if `wait`, once a server is
    back, and so on for ever; else Unavailable is raised. The URLs are such that
    `credentials.key_for` accepts.
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
        max_concurrency: int,
        accounting: Accounting,
        name_knob: str = "teacher.served_name",
    ):
        endpoints = (
            Endpoint(
                url,
                name=name,
                key=key,
                timeout_s=timeout_s,
                max_concurrency=max_concurrency,
            )
            for url in urls
        )
        self._servers = Servers(endpoints, name_knob=name_knob)
        self.role = _ROLES.get(name_knob, "teacher")
        self.accounting = accounting
        self._retries = retries
        self._wait = wait
        self._rng = random.Random()  # for pauses only: no result depends on it
        self._reminder = Reminder()
        self._return: asyncio.Task | None = None
        self._running: set[concurrent.futures.Future] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="teacher", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def view(self) -> "Transport":
        """The same servers and thread with separate accounting."""
        view = copy.copy(self)
        view.accounting = Accounting()
        return view

    def run(self, jobs: Sequence[Callable[[], Awaitable]]) -> list:
        """The results of all jobs, in order; the first error ends the others."""
        return self.begin(jobs).result()

    def begin(
        self, jobs: Sequence[Callable[[], Awaitable]], then: Callable = list
    ) -> "Pending":
        """Starts the jobs beside running ones; the result is `then(results)`.

        If none is running, servers are verified first: one may have been restarted
        since the last call.
        """
        if not self._running:
            self._servers.reverify()
        future = asyncio.run_coroutine_threadsafe(gather(jobs), self._loop)
        pending = Pending(future, then, self.accounting)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return pending

    def close(self) -> None:
        """Ends the thread and its connections; a second call does nothing."""
        if self._loop.is_closed():
            return
        atexit.unregister(self.close)
        self.run([self._servers.close])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        left = asyncio.all_tasks(self._loop)  # verifications of servers that hang
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()

    async def connect(self) -> None:
        """Finds the served model; raises UserError if it is not the requested one."""
        await self._persist(self._servers.meet, starting=True)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """The servers."""
        return self._servers.endpoints

    @property
    def model(self) -> tuple[str, str]:
        """The name of the served model, and the source of its weights."""
        known = next((e for e in self.endpoints if e.known), self.endpoints[0])
        return known.name, known.weights

    async def post(
        self,
        path: str,
        body: Mapping,
        *,
        priority: str,
        affinity: int,
        check: Callable[[Reply], None],
    ) -> Reply:
        """The reply to a request for the model; `check` raises Unavailable for a
        useless reply, `priority` and `affinity` are those of `Pool`."""
        ask = functools.partial(self._post, path, body, check)
        there = functools.partial(self._servers.use, ask, priority, affinity)
        return await self._persist(there)

    async def probe(self, path: str, body: Mapping, plain: Mapping) -> Reply:
        """The reply to a request of a program's start, tried a few times in any case.

        Some servers answer a field that they do not know with HTTP 500. So a server
        error to each of five trials, where `plain`, the barest request, is taken after
        each, raises Refused.
        """
        failure = None
        for _ in range(_TRIALS):
            try:
                return await self._begin(path, body, is_trial=True)
            except Unavailable as error:
                if not error.server_error:
                    raise
                failure = error
            with contextlib.suppress(Refused):
                await self._begin(path, plain, is_trial=False)
        raise Refused(f"{failure}")

    async def _begin(self, path: str, body: Mapping, *, is_trial: bool) -> Reply:
        ask = functools.partial(self._post, path, body, lambda reply: None)
        there = functools.partial(self._servers.use, ask, "", 0)
        return await self._persist(there, starting=True, is_trial=is_trial)

    async def _post(
        self,
        path: str,
        body: Mapping,
        check: Callable[[Reply], None],
        endpoint: Endpoint,
    ) -> Reply:
        sent = time.monotonic()
        reply = await endpoint.post(path, body, check)
        self.accounting.answered(
            time.monotonic() - sent,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
        )
        return reply

    async def fetch(self, path: str) -> object:
        """The decoded body at a path outside the API; None if the server has no such
        path, or answers it with one server error after the other."""
        there = functools.partial(self._servers.use, lambda e: e.get(path), "", 0)
        for _ in range(_TRIALS):
            try:
                return await self._persist(there, starting=True, is_trial=True)
            except Unavailable as error:
                if not error.server_error:
                    raise
            await asyncio.sleep(_FIRST_PAUSE)
        return None

    async def _persist(
        self,
        ask: Callable[[], Awaitable],
        *,
        starting: bool = False,
        is_trial: bool = False,
    ):
        """What `ask` returns once it does; a server error to a trial is raised."""
        least = _LEAST_RETRIES if starting else 0

        def passes(error: BaseException) -> bool:
            known = isinstance(error, Unavailable)
            return known and not (is_trial and error.server_error)

        while True:
            try:
                async for attempt in self._attempts(max(self._retries, least), passes):
                    with attempt:
                        return await ask()
            except Unavailable as error:
                if not (self._wait and passes(error)):
                    raise
                await self._until_back(error)

    def _attempts(
        self, retries: int, passes: Callable[[BaseException], bool]
    ) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(passes),
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=self._pause,
            before_sleep=lambda _: self.accounting.count(retries=1),
            reraise=True,
        )

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next try: as the server asked or doubling, minus up to
        half, so that retries spread out."""
        error = state.outcome and state.outcome.exception()
        asked = error.retry_after if isinstance(error, Unavailable) else None
        if asked is not None:
            return min(asked, _LONGEST_RETRY_AFTER) * self._rng.uniform(1.0, 1.1)
        pause = _FIRST_PAUSE * 2 ** min(state.attempt_number - 1, 16)
        return min(pause, _LONGEST_PAUSE) * self._rng.uniform(0.5, 1.0)

    async def _until_back(self, error: Unavailable) -> None:
        """Returns once a server with the right model is there; all waiting requests
        share one check."""
        if self._return is None or self._return.done():
            self._return = asyncio.create_task(self._look_out(error))
        await asyncio.shield(self._return)

    async def _look_out(self, error: Unavailable) -> None:
        started, said = time.monotonic(), False
        while True:
            if self._reminder.due():
                said = True
                _log.warning(
                    "The run waits for its %s (for %.0f s now). %s. It goes on as soon "
                    "as the same model answers there; Ctrl-C ends it.",
                    self.role,
                    time.monotonic() - started,
                    error,
                )
            await asyncio.sleep(_POLL * self._rng.uniform(0.5, 1.0))
            try:
                await self._servers.find_one()
            except Unavailable as again:
                error = again
                continue
            if said:
                waited = time.monotonic() - started
                _log.warning("The %s is back after %.0f s.", self.role, waited)
            return

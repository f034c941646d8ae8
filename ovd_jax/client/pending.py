"""Jobs that run in another thread's event loop."""

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Sequence

from ovd_jax.client.accounting import Accounting


class Pending:
    """Running jobs, to wait for or to cancel."""

    def __init__(
        self, future: concurrent.futures.Future, then: Callable, accounting: Accounting
    ):
        self._future = future
        self._then = then
        self._accounting = accounting
        accounting.asked()
        future.add_done_callback(lambda _: accounting.done())

    def result(self) -> list:
        """`then` of the results in order; raises the first error. An interrupt ends the
        jobs."""
        with self._accounting.waiting():
            try:
                results = self._future.result()
            except BaseException:
                self.cancel()
                raise
        return self._then(results)

    def on_error(self, tell: Callable[[BaseException], None]) -> None:
        """Calls `tell(error)`, in any thread, once a job has failed."""

        def look(future: concurrent.futures.Future) -> None:
            if not future.cancelled() and (error := future.exception()):
                tell(error)

        self._future.add_done_callback(look)

    def cancel(self) -> None:
        """Ends the unfinished jobs."""
        self._future.cancel()


async def gather(jobs: Sequence[Callable[[], Awaitable]]) -> list:
    """The results of all jobs; leaves none running."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

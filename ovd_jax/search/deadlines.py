"""Deadlines for the clients of our server, which uvicorn does not have."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class Deadlines(H11Protocol):
    """HTTP/1.1 for uvicorn's `http` option.

    A connection ends if the headers of its next request are not complete after
    `headers_s` seconds, however often a byte of them comes, or if the client has not
    taken its answer after `answer_s` seconds.
    """

    headers_s = 10.0
    answer_s = 60.0
    _headers_due: asyncio.TimerHandle | None = None
    _answer_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Waits for the first request."""
        transport.set_write_buffer_limits(high=0)  # tells of any unsent byte
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing more."""
        self._headers_due = cancelled(self._headers_due)
        self._answer_due = cancelled(self._answer_due)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Waits for headers unless a request is being answered."""
        super().data_received(data)
        # None before the first request, which uvicorn's types do not say.
        first = self.cycle is None  # pyright: ignore[reportUnnecessaryComparison]
        if first or self.cycle.response_complete:
            self._await_headers()
        else:
            self._headers_due = cancelled(self._headers_due)

    def pause_writing(self) -> None:
        """Waits for the client to read."""
        super().pause_writing()
        self._answer_due = self.loop.call_later(self.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read all there is."""
        super().resume_writing()
        self._answer_due = cancelled(self._answer_due)

    def _await_headers(self) -> None:
        if self._headers_due is None and not self.transport.is_closing():
            self._headers_due = self.loop.call_later(self.headers_s, self._refuse)

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()


def with_deadlines(*, headers_s: float, answer_s: float) -> type[Deadlines]:
    """The protocol with these deadlines."""
    times = {"headers_s": headers_s, "answer_s": answer_s}
    return type("WithDeadlines", (Deadlines,), times)


def cancelled(timer: asyncio.TimerHandle | None) -> None:
    """Cancels a timer, if there is one."""
    if timer is not None:
        timer.cancel()

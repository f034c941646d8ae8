"""Limits the requests to our server."""

import asyncio
from collections.abc import Callable

_RETRY_LATER = b"The server is busy, or the request came too slowly."


class Guard:
    """An ASGI application around `app` that refuses bodies of more than `most_bytes`
    (413) and ends a request after `timeout_s` seconds, including reading, or with the
    server (503)."""

    def __init__(self, app, *, most_bytes: int, timeout_s: float):
        self._app = app
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope, receive, send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def tracked(message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive)
                if body is not None:
                    await self._app(scope, given(body, receive), tracked)
                    return
        except (TimeoutError, asyncio.CancelledError):
            if not started:
                await refuse(send, 503, _RETRY_LATER)
            return
        said = f"A request has at most {self._most_bytes} bytes."
        await refuse(send, 413, said.encode())

    async def _read(self, receive) -> bytes | None:
        """The body; None if it is too long."""
        body, more = bytearray(), True
        while more and len(body) <= self._most_bytes:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return None if len(body) > self._most_bytes else bytes(body)


def given(body: bytes, receive: Callable) -> Callable:
    """An ASGI `receive` for a request with this body."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def first_body():
        return left.pop() if left else await receive()

    return first_body


async def refuse(send: Callable, status: int, said: bytes) -> None:
    """Answers with a status and a text, and ends the connection."""
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(said)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": said})

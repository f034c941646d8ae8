"""JSON over HTTP with one untrusted server: answers are limited in size and checked."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp

from ovd_jax.client.credentials import is_loopback

MOST_BYTES = 64 * 2**20  # of one answer: prompt_logprobs of 30,000 tokens need 50 MB
_LEAST_KEY = 8  # characters; shorter ones are words such as EMPTY, which answers hold


class TooLong(ValueError):
    """The answer exceeds the limit of bytes."""


class Answer(NamedTuple):
    """A server's answer; `body` is decoded JSON, or the text of an error that is not
    JSON."""

    status: int
    headers: Mapping[str, str]
    body: object


class Client:
    """Persistent connections to the server at `url`. Use its methods in one event
    loop."""

    def __init__(self, url: str, *, key: str | None):
        self._key = key if key and len(key) >= _LEAST_KEY else None
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._proxy = proxy_for(url)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str) -> Answer:
        """The answer to a GET. Raises aiohttp.ClientError without one, ValueError if it
        is too long or not JSON."""
        return await self._ask("GET", url, None)

    async def post(self, url: str, body: Mapping) -> Answer:
        """The answer to a POST; raises the errors of `get`."""
        return await self._ask("POST", url, encoded(body))

    async def _ask(self, method: str, url: str, content: bytes | None) -> Answer:
        if self._session is None:  # it belongs to the event loop that runs
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),  # the caller has one
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
            )
        request = self._session.request(
            method, url, data=content, proxy=self._proxy, allow_redirects=False
        )
        async with request as response:
            read = bytearray()
            async for part in response.content.iter_any():
                read += part
                if len(read) > MOST_BYTES:
                    raise TooLong(f"its answer has more than {MOST_BYTES} bytes")
        if self._key:  # some servers repeat it; a model's text must not hold it either
            read = read.replace(self._key.encode(), b"[key]")
        try:
            body = decoded(read)
        except ValueError:
            if response.status == 200:
                raise
            body = read.decode("utf-8", "replace")
        return Answer(response.status, response.headers, body)


def encoded(body: Mapping) -> bytes:
    """JSON of a request; lone surrogates, which byte-level tokenizers produce, become
    question marks."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def decoded(content: bytes | bytearray) -> object:
    """The value of JSON in UTF-8, with U+FFFD for lone surrogates. Raises ValueError
    for anything else, and for JSON nested too deeply."""
    try:
        body = json.loads(content.decode("utf-8-sig"))
        return _mended(body) if re.search(rb"\\u[dD][89a-fA-F]", content) else body
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _mended(value):
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return value


def proxy_for(url: str) -> str | None:
    """The proxy of the environment for a URL; none for this machine."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)

"""A retrieval server with the interface of Search-R1 (arXiv:2503.09516).

    POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}
    -> {"result": [[{"document": {"contents": "title\\ntext"}, "score": s}, ...], ...]}

`launch/serve_search.py` is one.
"""

import math
import reprlib
import time
from collections.abc import Sequence
from typing import Any

import httpx
import tenacity

from ovd_jax.client.connection import TooLong, decoded, encoded
from ovd_jax.client.credentials import checked_url
from ovd_jax.client.endpoint import retry_after
from ovd_jax.search.base import Document, Query, SearchError
from ovd_jax.search.engine import Away
from ovd_jax.text import one_line

_AT_ONCE = 64  # queries in a request
_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=30.0)  # seconds
_LONGEST_RETRY_AFTER = 120.0  # seconds; a server may ask for an hour
_MAX_BYTES = 64 * 2**20  # of one answer


class Http:
    """The `topk` documents of the server at `url`.

    A failed request is retried `retries` times; each try takes at most `timeout_s`.
    Safe to call from several threads.
    """

    draws = False

    def __init__(self, url: str, *, topk: int, timeout_s: float, retries: int):
        url = checked_url(url, "search.url")
        self.identity = {"engine": "http", "url": url, "topk": topk}
        self._url = url
        self._topk = topk
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            timeout=timeout_s, headers={"Content-Type": "application/json"}
        )
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Away),
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=_pause,
            reraise=True,
        )

    def find(
        self, queries: Sequence[Query], seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """The server's documents, best first."""
        found = []
        for start in range(0, len(queries), _AT_ONCE):
            texts = [query.text for query in queries[start : start + _AT_ONCE]]
            found += self._retrying.copy()(self._ask, texts)
        return found

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _ask(self, texts: list[str]) -> list[tuple[Document, ...]]:
        body = {"queries": texts, "topk": self._topk, "return_scores": True}
        try:
            answer = self._post(body)
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            raise Away(self._said(str(error) or type(error).__name__)) from None
        return self._documents(answer, len(texts))

    def _post(self, body):
        """The decoded answer; the time limit covers all of it."""
        end = time.monotonic() + self._timeout_s
        with self._client.stream("POST", self._url, content=encoded(body)) as response:
            content = bytearray()
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > end:
                    raise TimeoutError(f"no answer within {self._timeout_s:g} s")
                if len(content) > _MAX_BYTES:
                    raise TooLong(f"its answer has more than {_MAX_BYTES} bytes")
            status = response.status_code
            if status != 200:
                said = self._said(f"HTTP {status}, {bytes(content[:200])!r}")
                if status not in (408, 425, 429) and status < 500:
                    raise SearchError(said)
                asked = retry_after(response.headers.get("retry-after"))
                raise Away(said, retry_after=asked)
        return decoded(content)

    def _documents(self, answer, count: int) -> list[tuple[Document, ...]]:
        try:
            found = [
                tuple(document(entry) for entry in entries[: self._topk])
                for entries in answer["result"]
            ]
        except (
            AttributeError, KeyError, OverflowError, RecursionError, TypeError,
            ValueError,
        ) as error:  # fmt: skip
            raise Away(
                self._said(
                    "its answer has not the form of Search-R1's /retrieve "
                    f"({type(error).__name__}: {error!s:.200}): {reprlib.repr(answer)}"
                )
            ) from None
        if len(found) != count:
            raise Away(self._said(f"it answers {len(found)} of {count} queries"))
        return found

    def _said(self, what: str) -> str:
        return (
            f"The search server at {self._url}: {one_line(what)}. Is it up, and is "
            "search.url right?"
        )


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds before the next try: as the server asked, or about doubling."""
    error = state.outcome and state.outcome.exception()
    asked = error.retry_after if isinstance(error, Away) else None
    if asked is not None:
        return min(asked, _LONGEST_RETRY_AFTER)
    return _BACKOFF(state)


def document(entry: Any) -> Document:
    """The document in an entry of an answer, with or without a score around it."""
    inner = entry.get("document", entry)
    title, _, text = inner["contents"].partition("\n")
    score = float(entry.get("score", 0.0))
    if not math.isfinite(score):
        raise ValueError(f"a score of {score}")
    return Document(title.strip('"'), text, str(inner.get("id", "")), score)

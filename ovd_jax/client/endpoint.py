"""One URL of an OpenAI-compatible server: its model and its errors."""

import asyncio
import contextlib
import email.utils
import reprlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from ovd_jax.client.connection import Answer, Client
from ovd_jax.client.credentials import masked
from ovd_jax.client.limit import Limit
from ovd_jax.client.replies import Refused, Reply, Unavailable
from ovd_jax.client.statuses import fault, passes, reply_in, words
from ovd_jax.errors import TeacherError
from ovd_jax.text import one_line

_LOOKED_AT, _SHOWN = 4000, 600  # characters of an error
_REST, _LONGEST_REST = 1.0, 30.0  # seconds
_FAULTS = (  # faults of the server, not of this program
    TeacherError, aiohttp.ClientError, TimeoutError, ValueError, OverflowError,
    RecursionError,
)  # fmt: skip


class WrongModel(Unavailable):
    """The server serves another model than at the start of the run."""


class Endpoint:
    """A server at one URL that `checked_url` accepted.

    Use its methods in one event loop; all of them raise Unavailable, Refused or Denied.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        key: str | None,
        timeout_s: float,
        max_concurrency: int,
    ):
        self.url = url.rstrip("/")
        self.name = name  # of the model; empty before `identify`
        self.weights = ""  # their source, if the server names it
        self.limit = Limit(max_concurrency, slow_s=timeout_s / 2)
        self.outstanding = 0
        self.cooldown_until = 0.0
        self._rest, self._failed_at = 0.0, 0.0
        self.open = False  # True once it is verified to serve the model
        self.known = False  # True if it ever was
        self._signature = ""  # the model's name in answers
        self._look_ups = 0  # number of successful verifications
        self._missed_at: int | None = None  # `_look_ups` at the first of several 404s
        self._key = key
        self._timeout_s = timeout_s
        self._client = Client(self.url, key=key)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def reverify(self) -> None:
        """Makes the next request verify the served model first."""
        self.open = False

    def failed(self, *, sent: float, now: float) -> None:
        """Has the server rest after a useless answer to a request of the time `sent`:
        longer each time that it was given another chance in vain."""
        if sent >= self._failed_at:
            self._rest = min(max(4 * self._rest, _REST), _LONGEST_REST)
            self._failed_at = now
        self.cooldown_until = now + self._rest

    def answered(self) -> None:
        """Has its next rest be a short one."""
        self._rest = 0.0

    async def identify(self) -> None:
        """Finds the model `name`, or the only model, and remembers it.

        Raises WrongModel if it is missing, ambiguous, or not the one of the first time.
        """
        async with self._explained():
            cards = await self._listed()
            there = ", ".join(f"{name} ({weights})" for name, weights in cards)
            if not self.name and not alike(cards):
                raise WrongModel(f"it serves {there}: say which of them is meant")
            card = next((x for x in cards if self.name in ("", x[0])), None)
            if card is None:
                raise WrongModel(f"it serves {there}, not {self.name!r}")
            if self.known and card[1] != self.weights:
                raise WrongModel(
                    f"it serves {there}, but this run began with the weights "
                    f"{self.weights}"
                )
            self.name, self.weights = card
            self.known = self.open = True
            self._look_ups += 1

    async def _listed(self) -> list[tuple[str, str]]:
        """The models in /models, or the requested one if the server has no such
        list."""
        answer = await self._client.get(self.url + "/models")
        listless = answer.status == 501 or (
            400 <= answer.status < 500 and not passes(answer.status)
        )
        if listless and self.name and not self.weights:
            return [(self.name, "")]
        if answer.status in (404, 405, 501) and not self.name:
            raise Refused(
                f"HTTP {answer.status} at /models, {words(answer.body)}: it lists no "
                "models. Name one in served_name, or mend the URL, which ends in /v1 "
                "as a rule"
            )
        return models_in(good(answer))

    async def post(
        self, path: str, body: Mapping, check: Callable[[Reply], None]
    ) -> Reply:
        """The reply to a request for the model; `check` raises Unavailable for a
        useless one."""
        async with self._explained():
            named = {"model": self.name, **body}
            looked_up = self._look_ups
            answer = await self._client.post(self.url + path, named)
            self._check_found(answer, looked_up)
            reply = reply_in(good(answer))
            self._signature = self._signature or reply.model
            if reply.model not in ("", self._signature):
                raise WrongModel(
                    f"it answers as {reply.model}, but this run began with "
                    f"{self._signature}",
                    lost=True,
                )
            check(reply)
        return reply

    def _check_found(self, answer: Answer, looked_up: int) -> None:
        """Raises Refused for a 404 of a server that still serves the model: the path
        does not exist."""
        if answer.status != 404:
            self._missed_at = None
        elif self._missed_at is None:
            self._missed_at = looked_up
        elif looked_up > self._missed_at + 1:
            raise Refused(f"HTTP 404, {words(answer.body)}")

    async def get(self, path: str) -> object:
        """The decoded body at a path outside the API; None if the server has no such
        path."""
        async with self._explained():
            url = self.url.removesuffix("/v1") + path
            try:
                answer = await self._client.get(url)
            except ValueError:  # an HTML page
                return None
            refused = 400 <= answer.status < 500 and answer.status not in (408, 429)
            return None if refused else good(answer)

    @contextlib.asynccontextmanager
    async def _explained(self):
        try:
            async with asyncio.timeout(self._timeout_s):  # for the whole answer
                yield
        except _FAULTS as error:
            found = explained(error, timeout_s=self._timeout_s)
            # Masked before it is cut: a partial key would not be found.
            said = one_line(masked(str(found)[:_LOOKED_AT], self._key))
            found.args = (f"{self.url}: {said[:_SHOWN]}",)
            self.open = self.open and not getattr(found, "lost", False)
            raise found from None


def good(answer: Answer) -> object:
    """The body of an answer. Raises the error of its status."""
    if 200 <= answer.status < 300:
        return answer.body
    body = answer.body
    if 300 <= answer.status < 400:
        where = answer.headers.get("location")
        body = f"the server has moved to {where}: set that URL"
    wait = retry_after(answer.headers.get("retry-after"))
    raise fault(answer.status, body, retry_after=wait)


def explained(error: Exception, *, timeout_s: float) -> TeacherError:
    """The message of an error for the user."""
    if isinstance(error, TeacherError):
        return error
    if isinstance(error, TimeoutError):
        message = f"no answer within {timeout_s:g} s"
        return Unavailable(message, congested=True, lost=True)
    if isinstance(error, aiohttp.ClientError):
        return Unavailable(f"{type(error).__name__}: {error}", lost=True)
    return Unavailable(f"its answer is no JSON ({error})")


def alike(cards: list[tuple[str, str]]) -> bool:
    """True if there is one model, or one set of weights with several names."""
    return len(cards) == 1 or (len({w for _, w in cards}) == 1 and bool(cards[0][1]))


def models_in(body: Any) -> list[tuple[str, str]]:
    """(name, source of its weights) of each model in an answer of /models, which is a
    list at some servers."""
    try:
        listed = body if isinstance(body, list) else body["data"]
        cards = [(str(card["id"]), str(card.get("root") or "")) for card in listed]
    except (AttributeError, KeyError, TypeError):
        cards = []
    if not cards:
        raise Unavailable(f"/models lists no model: {reprlib.repr(body)}")
    return cards


def retry_after(header: str | None) -> float | None:
    """Seconds in a Retry-After header: a number or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header).timestamp()
    except (OverflowError, TypeError, ValueError):
        return None
    return max(0.0, moment - time.time())

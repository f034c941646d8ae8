"""One URL of an OpenAI-compatible server: who is there, and what went wrong."""

import asyncio
import contextlib
import email.utils
import time
import urllib.parse
from collections.abc import Callable, Mapping

import openai

from ovd_jax.errors import UserError
from ovd_jax.teacher.base import TeacherError
from ovd_jax.teacher.limit import Limit
from ovd_jax.teacher.replies import Reply, Unavailable
from ovd_jax.teacher.statuses import fault, reply_in

_NO_KEY = "none"  # the client insists on one; servers without keys ignore it


class WrongModel(Unavailable):
    """The server serves something else than the run began with."""


class Endpoint:
    """A server at one URL, through the `openai` client. Its methods run in one event
    loop; all of them raise Unavailable, Refused or Denied."""

    def __init__(
        self, url: str, *, name: str, key: str | None, timeout_s: float, most: int
    ):
        self.url = checked_url(url)
        self.name = name  # of the model; empty until it is known
        self.weights = ""  # where the server has them from, as far as it says
        self.limit = Limit(most, slow_s=timeout_s / 2)
        self.outstanding = 0
        self.rests_until = 0.0
        self._known = self._verified = False
        self._one_asks = asyncio.Lock()  # who is there, for all who want to know
        self._signature = ""  # the model's name in answers
        self._key = key
        self._timeout_s = timeout_s
        self._client = openai.AsyncOpenAI(
            base_url=self.url, api_key=key or _NO_KEY, timeout=timeout_s, max_retries=0
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def doubt(self) -> None:
        """Has the server asked who it is before the next request."""
        self._verified = False

    async def identify(self) -> None:
        """Finds the model `name`, or whichever is first, and remembers it.

        Raises WrongModel where it is not there, or is not what it was the first time.
        """
        async with self._explained():
            cards = models_in(await self._client.get("/models", cast_to=object))
            card = next((x for x in cards if self.name in ("", x[0])), None)
            there = ", ".join(f"{name} ({weights})" for name, weights in cards)
            if card is None:
                raise WrongModel(f"it serves {there}, not {self.name!r}")
            if self._known and card[1] != self.weights:
                raise WrongModel(
                    f"it serves {there}, but this run began with the weights "
                    f"{self.weights}"
                )
            self.name, self.weights = card
            self._known = self._verified = True

    async def post(
        self, path: str, body: Mapping, check: Callable[[Reply], None]
    ) -> Reply:
        """The reply to one request, after `check`, which raises Unavailable for one
        that is of no use. A server in doubt is asked who it is first."""
        async with self._one_asks:
            if not self._verified:
                await self.identify()
        async with self._explained():
            reply = reply_in(await self._client.post(path, body=body, cast_to=object))
            self._signature = self._signature or reply.model
            if reply.model not in ("", self._signature):
                raise WrongModel(
                    f"it answers as {reply.model}, but this run began with "
                    f"{self._signature}",
                    lost=True,
                )
            check(reply)
        return reply

    async def get(self, path: str):
        """The decoded body at a path outside the API; None where the server has no such
        thing."""
        async with self._explained():
            address = self.url.removesuffix("/v1") + path
            try:
                return await self._client.get(address, cast_to=object)
            except (openai.NotFoundError, openai.BadRequestError):
                return None

    @contextlib.asynccontextmanager
    async def _explained(self):
        try:
            # The client's own timeout starts anew with every byte that comes.
            async with asyncio.timeout(self._timeout_s):
                yield
        except (TeacherError, openai.OpenAIError, TimeoutError, ValueError) as error:
            found = explained(error, timeout_s=self._timeout_s)
            said = str(found)
            if self._key:  # some servers repeat it
                said = said.replace(self._key, "[key]")
            found.args = (f"{self.url}: {said}",)
            self._verified = self._verified and not getattr(found, "lost", False)
            raise found from None


def explained(error: Exception, *, timeout_s: float) -> TeacherError:
    """What an error means for the one who asked."""
    if isinstance(error, TeacherError):
        return error
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        message = f"no answer within {timeout_s:g} s"
        return Unavailable(message, congested=True, lost=True)
    if isinstance(error, openai.APIStatusError):
        wait = retry_after(error.response.headers.get("retry-after"))
        return fault(error.status_code, error.body, retry_after=wait)
    if isinstance(error, openai.OpenAIError):
        cause = error.__cause__ or error
        message = f"{type(cause).__name__}: {cause or error}"
        return Unavailable(message, lost=True)
    return Unavailable(f"its answer is no JSON ({error})")


def checked_url(url: str) -> str:
    """`url` without a slash at its end. Raises UserError for one that is none."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"teacher.url {url!r} is no URL such as http://127.0.0.1:8000/v1."
        )
    if parts.username or parts.password:
        raise UserError(
            "teacher.url holds a user name or password, which would be saved with the "
            "run; put the key into the variable that teacher.api_key_env names."
        )
    return url.rstrip("/")


def models_in(body) -> list[tuple[str, str]]:
    """(name, where its weights are) of each model in the answer of /models, which is a
    list at some servers."""
    try:
        listed = body if isinstance(body, list) else body["data"]
        cards = [(card["id"], str(card.get("root") or "")) for card in listed]
    except (AttributeError, KeyError, TypeError):
        cards = []
    if not cards:
        raise Unavailable(f"/models lists no model: {str(body)[:200]!r}")
    return cards


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())

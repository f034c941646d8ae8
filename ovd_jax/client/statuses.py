"""Errors for HTTP statuses, with the server's own words."""

import re
from collections.abc import Mapping

from ovd_jax.client.replies import Denied, Refused, Reply, Unavailable, parse
from ovd_jax.errors import TeacherError

_BUSY = (408, 409, 425, 429, 502, 503, 504, 529)
_NO_ACCESS = (401, 402, 403)
# An account without money. Servers send these with 400, 402, 403 or 429. Plain "quota"
# is not enough: Gemini says "quota" of a limit a minute, too.
_NO_MONEY = re.compile(
    r"insufficient[_ ](?:\w+[_ ])?(?:quota|balance|credits?|funds)|payment[_ ]required"
    r"|billing[_ ](?:hard[_ ]limit|not[_ ]active|inactive)|credit balance is too low"
    r"|out of credits|exceeded_current_quota|arrearage|account_deactivated"
    r"|access_terminated|balance (?:is )?(?:insufficient|not enough|too low)"
    r"|not enough (?:credits?|balance|funds)|more credits|out of funds"
    r"|account is not active|(?:spend(?:ing)?|usage) limit.{0,20}(?:reached|exceeded)"
    r"|budget[_ ](?:has been )?exceeded"
    r"|\u4f59\u989d\u4e0d\u8db3|\u6b20\u8d39",  # no balance left; in arrears
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.{0,5}(?:length|size|window)|(?:prompt|input).{0,20}too (?:long|large)"
    r"|too many (?:input )?tokens|maximum.{0,20}(?:length|tokens)",
    re.IGNORECASE,
)
_LOOKED_AT = 4000  # characters of an error; the endpoint masks keys, then cuts


def fault(status: int, body: object, *, retry_after: float | None) -> TeacherError:
    """The error of an HTTP status and its decoded body: Denied ends the run, Refused
    concerns this request only, Unavailable may pass."""
    text = f"HTTP {status}, {words(body)[:_LOOKED_AT]}"
    searched = f"{body!s:.{_LOOKED_AT}}"
    if 400 <= status < 500 and _NO_MONEY.search(searched):
        return Denied(f"{text} (the account behind the key has no credit left)")
    if status in _NO_ACCESS:
        return Denied(f"{text} (the key is in the variable that api_key_env names)")
    if status in _BUSY:
        return Unavailable(
            text, congested=True, retry_after=retry_after, server_error=status >= 500
        )
    if status >= 500 and _TOO_LONG.search(searched):
        return Refused(text)
    if status == 501:  # llama.cpp: not supported, and never will be
        return Refused(text)
    # 404: vLLM does not know the model, another one may have taken its place.
    if status >= 500 or status == 404:
        return Unavailable(text, lost=True, server_error=status >= 500)
    return Refused(text)


def passes(status: int) -> bool:
    """True for the statuses of an overloaded server."""
    return status in _BUSY


def reply_in(body: object) -> Reply:
    """The reply in an answer with status 200. Raises the error that some gateways put
    there, or Unavailable for any other shape."""
    if isinstance(body, Mapping) and body.get("error") and not body.get("choices"):
        error = body["error"]
        status = error.get("code") if isinstance(error, Mapping) else None
        if not (isinstance(status, int) and 400 <= status < 600):
            status = 500
        raise fault(status, body, retry_after=None)
    return parse(body)


def words(body: object, depth: int = 4) -> str:
    """The message of an error's body: `error`, `message` or FastAPI's `detail`, at most
    `depth` objects deep; else the whole body."""
    if isinstance(body, list) and depth:
        return "; ".join(words(item, depth - 1) for item in body)
    if not isinstance(body, Mapping) or not depth:
        return str(body).strip()
    if "msg" in body and isinstance(body.get("loc"), list):  # one of FastAPI's details
        return f"{'.'.join(map(str, body['loc']))}: {body['msg']}"
    for name in ("error", "message", "detail", "msg"):
        if body.get(name):
            return words(body[name], depth - 1)
    return str(dict(body))

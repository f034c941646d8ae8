"""Keys: where one is read, where it may go, and how a text is rid of it."""

import ipaddress
import os
import re
import urllib.parse
from collections.abc import Mapping

from ovd_jax.errors import UserError

# Names of query fields that hold a credential, without what is not a letter.
_SECRET_FIELD = re.compile(
    r".*(keys?|keyid|tokens?|secrets?|passwords?|passwd|passphrase|pwd|auth"
    r"|authorization|signature|credentials?|jwt|bearer|cookies?|session(?:id)?)|pass|pat"
    r"|sig|code|otp|pin",
    re.IGNORECASE | re.DOTALL,
)
_LOOKS_LIKE_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:c?sk|pk|xai|nvapi|glpat|xox[a-z]|pplx)-"
    r"|(?:hf|gsk|gh[a-z]|github_pat|r8|fw|[sr]k_live|npm|jina|[a-z]{3}_v1)_|AIza|AKIA)"
    r"[A-Za-z0-9_-]{10,}"
    r"|(?<![A-Za-z0-9])(?:voyage-|key-|co_)[A-Za-z0-9]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\."  # a JSON web token
)
_KEY_IN_PATH = re.compile(
    r"(?:^|/)(?:api|access)[_-]?(?:key|token)/[^/]", re.IGNORECASE
)
_PART = 8  # characters: a shorter piece of a key gives nothing away
_DEFAULT_VARIABLE = "OPENAI_API_KEY"
_VARIABLES = {  # knob of a URL: (group with its api_key_env and allow_http)
    "teacher.url": "teacher",
    "continuer.url": "teacher",
    "engine": "teacher",
    "search.url": "search",
}


def checked_url(url: str, knob: str) -> str:
    """`url` without a slash at its end. Raises UserError for one that is none, or that
    holds a credential, which would be saved and logged with the config."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0  # raises ValueError for one that is none
    except ValueError:
        usable = False
    if secret := credential_in(url):
        raise UserError(
            f"{knob} holds {secret}, which would be saved and logged with the run (it "
            f"is not shown here); put the key into the variable that "
            f"{_group(knob)}.api_key_env names."
        )
    if not usable:
        raise UserError(f"{knob} {url!r} is no URL such as http://127.0.0.1:8000/v1.")
    return url.rstrip("/")


def credential_in(url: str) -> str:
    """The kind of credential that a URL holds; empty if it holds none."""
    _, _, rest = url.rpartition("://")
    host, *others = re.split(r"[/?#]", rest, maxsplit=1)
    behind = urllib.parse.unquote_plus("".join(others))
    if "@" in host:
        return "a user name or password"
    for field in re.split(r"[/?&;#]", behind):
        name, sign, _ = field.partition("=")
        if sign and _SECRET_FIELD.fullmatch(re.sub(r"[^A-Za-z]", "", name)):
            return "a credential in a field"
    if _LOOKS_LIKE_KEY.search(behind) or _KEY_IN_PATH.search(behind):
        return "what looks like a key"
    return ""


def read_key(variable: str, knob: str) -> str | None:
    """The key in an environment variable; None where it is unset or empty.

    Raises UserError unless `variable` is the name of one that is set: it may be the key
    itself, and is not shown, for it must not get into any log.
    """
    key = os.environ.get(variable)
    named = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable)
    if not named or (key is None and variable != _DEFAULT_VARIABLE):
        raise UserError(
            f"{knob} is not the name of an environment variable that is set, such as "
            f"{_DEFAULT_VARIABLE} (what it is may be a key and is not shown); the key "
            "itself belongs into that variable."
        )
    key = (key or "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise UserError(
            f"The variable that {knob} names holds a space, a line break or another "
            "character that no key has (it is not shown)."
        )
    return key or None


def key_for(urls: str, options: Mapping, knob: str) -> str | None:
    """The key for the servers at `urls`, which are divided by commas; None if there is
    none. `options` has `api_key_env` and `allow_http`.

    Raises UserError for a URL that cannot be used, and where the key would go over
    plain http to another machine.
    """
    group = _group(knob)
    key = read_key(options["api_key_env"], f"{group}.api_key_env")
    for url in urls.split(","):
        parts = urllib.parse.urlsplit(checked_url(url.strip(), knob))
        plain = parts.scheme == "http" and not is_loopback(parts.hostname or "")
        if key and plain and not options["allow_http"]:
            raise UserError(
                f"{knob} would send the key in {options['api_key_env']} to "
                f"{parts.hostname} over plain http, where others can read it; use "
                f"https, unset the variable, or set {group}.allow_http=True."
            )
    return key


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as its name or address says."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def exposed(values: Mapping[str, object]) -> str:
    """What is wrong with the first knob of a config that holds a key, or sends one
    where others can read it; empty if none does."""
    for knob, value in values.items():
        if not isinstance(value, str):
            continue
        try:
            if knob in _VARIABLES and value:
                _check_server(knob, value, values)
            elif knob.endswith("api_key_env"):
                read_key(value, knob)
            elif value.startswith(("http://", "https://")) and (
                secret := credential_in(value)
            ):
                return f"{knob} holds {secret}, which would be saved with the run."
        except UserError as error:
            return str(error)
    return ""


def _check_server(knob: str, urls: str, values: Mapping[str, object]) -> None:
    if knob == "search.url" and values.get("search.backend") == "http":
        checked_url(urls, knob)  # no key goes there
        return
    group = _group(knob)
    options = {
        "api_key_env": values.get(f"{group}.api_key_env", _DEFAULT_VARIABLE),
        "allow_http": values.get(f"{group}.allow_http", False),
    }
    key_for(urls, options, knob)


def _group(knob: str) -> str:
    """The group of knobs that has the key and its rules for the URL in `knob`."""
    return _VARIABLES.get(knob, "teacher")


def masked(text: str, key: str | None) -> str:
    """`text` with `[key]` in place of the key and of each larger piece of it, as one
    that somebody has cut leaves behind."""
    if not key:
        return text
    size = min(len(key), _PART)
    pieces = {key[i : i + size] for i in range(len(key) - size + 1)}
    kept, at = [], 0
    while at < len(text):
        end = at
        while text[end : end + size] in pieces:
            end += 1
        kept.append("[key]" if end > at else text[at])
        at = end + size - 1 if end > at else at + 1
    return "".join(kept)

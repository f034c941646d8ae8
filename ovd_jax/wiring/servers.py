"""Connections to servers."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.credentials import key_for
from ovd_jax.client.transport import Transport

NAME_KNOBS = {  # knob of a URL: the knob that names its model
    "teacher.url": "teacher.served_name",
    "continuer.url": "continuer.served_name",
    "search.url": "search.served_name",
    "engine": "engine_served_name",
}


def make_transport(
    urls: str, options: ConfigDict, *, name: str, knob: str = "teacher.url"
) -> Transport:
    """A transport to the servers at `urls`, the value of `knob`; `options` are knobs
    such as `teacher.*`."""
    return Transport(
        [url.strip() for url in urls.split(",")],
        name=name,
        key=key_for(urls, options, knob),
        timeout_s=options.timeout_s,
        retries=options.retries,
        wait=options.on_failure == "wait",
        max_concurrency=options.max_concurrency,
        accounting=Accounting(),
        name_knob=NAME_KNOBS[knob],
    )


def close(*parts: Any) -> None:
    """Closes the parts that have connections or threads."""
    for part in parts:
        if hasattr(part, "close"):
            part.close()


def once(
    opened: contextlib.ExitStack, make: Callable, *args: Any, **kwargs: Any
) -> Callable:
    """A function that makes a part at its first call; `opened` closes it."""

    @functools.cache
    def part():
        made = make(*args, **kwargs)
        opened.callback(close, made)
        return made

    return part

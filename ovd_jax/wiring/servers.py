"""Connections to servers, and how they end."""

from typing import Any

from ml_collections import ConfigDict

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.credentials import key_for
from ovd_jax.client.transport import Transport

NAME_KNOBS = {  # by the knob of a URL, the one that names the model there
    "teacher.url": "teacher.served_name",
    "continuer.url": "continuer.served_name",
    "search.url": "search.served_name",
    "engine": "engine_served_name",
}


def make_transport(
    urls: str, options: ConfigDict, *, name: str, knob: str = "teacher.url"
) -> Transport:
    """Requests to the servers at `urls`, which `knob` gives; `options` are knobs such
    as `teacher.*`."""
    return Transport(
        [url.strip() for url in urls.split(",")],
        name=name,
        key=key_for(urls, options, knob),
        timeout_s=options.timeout_s,
        retries=options.retries,
        wait=options.on_failure == "wait",
        most=options.max_concurrency,
        accounting=Accounting(),
        name_knob=NAME_KNOBS[knob],
    )


def close(*parts: Any) -> None:
    """Ends the connections and threads of those that have any."""
    for part in parts:
        if hasattr(part, "close"):
            part.close()

"""Rows of data sets on the hub, by the library `datasets`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.tasks.data.columns import SPLITS

NAME = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:\[(?P<split>[\w+]+)\])?"
)
URL = re.compile(r"https?://\S+\.jsonl?")


def is_hub_name(data: str) -> bool:
    """Whether `data` is a hub name, the URL of a JSONL file, or a local folder."""
    if URL.fullmatch(data) or (data and Path(data).is_dir()):
        return True
    return bool(NAME.fullmatch(data)) and not data.endswith((".json", ".jsonl"))


def hub_rows(data: str, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(row, where it stands) in one split, "train" or "eval", of "owner/name" or
    "owner/name:config".

    The "test" split (or else "validation") is "eval", unless splits are named as in
    "owner/name[train+test]".
    """
    for number, row in enumerate(load(data, split)):
        yield row, f"{data}, row {number} of {split!r}"


def load(data: str, split: str) -> Any:
    """What the library `datasets` loads, with one kind of error."""
    remedy = "pass the path of a JSONL file instead"
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{data!r} is on the hub, and reading it needs the library `datasets` "
            f"({error}): pip install 'ovd_jax[hub]', or {remedy}."
        ) from None
    try:
        if URL.fullmatch(data):
            return datasets.load_dataset("json", data_files=data, split="train")
        parts = {"name": data, "config": None, "split": None}
        if not Path(data).is_dir() and (match := NAME.fullmatch(data)):
            parts = match.groupdict()
        return load_split(datasets, **parts, use=split)
    except Exception as error:  # `datasets` raises a dozen unrelated types
        raise UserError(
            f"The hub data set {data!r} could not be read: {error}. Check its name and "
            f"the connection, or {remedy}."
        ) from error


def load_split(
    datasets: Any, name: str, config: str | None, split: str | None, use: str
) -> Any:
    """The split that is asked for, or the one that serves the use."""
    configs = datasets.get_dataset_config_names(name)
    usual = [c for c in ("default", "main") if c in configs]
    if not config and not usual and len(configs) > 1:
        raise UserError(f"name one of its configs {configs}, as '{name}:CONFIG'")
    config = config or (usual or configs)[0]
    if split is None:
        splits = datasets.get_dataset_split_names(name, config)
        split = next((s for s in SPLITS[use] if s in splits), None)
        if split is None:
            raise UserError(f"of {SPLITS[use]} it has none, only {splits}")
    return datasets.load_dataset(name, config, split=split)

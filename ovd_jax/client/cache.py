"""A cache of answers on disk, by the content of the question."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

_log = logging.getLogger(__name__)


class DiskCache:
    """JSON values in a folder, one file for each key; several processes may share
    it."""

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._warned = False

    def get(self, key: Mapping) -> Mapping | None:
        """The value of a key; None without one, or if its file is damaged."""
        try:
            entry = json.loads(self._path(key).read_text("utf-8"))
        except (OSError, RecursionError, ValueError):
            return None
        # The file contains the key, so that a moved file is not used.
        if not isinstance(entry, dict) or entry.get("key") != json.loads(_text(key)):
            return None
        return entry.get("value")

    def put(self, key: Mapping, value: Mapping) -> None:
        """Stores `value` atomically.

        If nothing can be written, warns once and continues.
        """
        try:
            self._put(key, value)
        except OSError as error:
            if not self._warned:
                _log.warning(
                    "Answers are not kept for another run: the cache %s cannot be "
                    "written (%s).", self._folder, error,
                )  # fmt: skip
            self._warned = True

    def _put(self, key: Mapping, value: Mapping) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = json.dumps({"key": key, "value": value})
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False
        ) as file:
            file.write(entry)
        os.replace(file.name, path)

    def _path(self, key: Mapping) -> Path:
        digest = hashlib.sha256(_text(key).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}.json"


def _text(key: Mapping) -> str:
    return json.dumps(key, sort_keys=True)

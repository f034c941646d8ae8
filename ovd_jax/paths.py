"""Folders that are kept between runs."""

import atexit
import functools
import logging
import os
import shutil
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The folder of this package in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ovd_jax"


@functools.cache
def writable(folder: Path) -> Path:
    """A cache folder; if it is not writable, warns and returns a temporary one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        own = Path(tempfile.mkdtemp(prefix="ovd_jax-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        _log.warning(
            "The cache %s cannot be written (%s): what it would keep is made anew in "
            "each run.", folder, error,
        )  # fmt: skip
        return own


def smollm2_dir() -> Path:
    """Where `launch/fetch_smollm2.py` puts its model folder."""
    return cache_dir() / "smollm2-135m-instruct"

"""Where things are kept between runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Ours in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ovd_jax"


def smollm2_dir() -> Path:
    """Where `launch/fetch_smollm2.py` puts its model folder."""
    return cache_dir() / "smollm2-135m-instruct"

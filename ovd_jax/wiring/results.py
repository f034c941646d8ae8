"""Keeps the results of one model from being overwritten by another's."""

import json
import os
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.errors import UserError


def owner(config: ConfigDict) -> tuple[str, dict[str, str]]:
    """(results file, the models and settings that it names)."""
    if config.evaluate == "teacher":
        return "audit.json", {"teacher": config.teacher.url or config.teacher.model}
    return "results.json", {
        "model": config.model,
        "engine": config.engine or "sampler",
    }


def check_results(config: ConfigDict) -> None:
    """Raises UserError if `config.run_dir` holds the results of another model."""
    name, own = owner(config)
    path = Path(config.run_dir) / name
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text("utf-8"))
        others = {key: str(found[key]) for key in own}
    except (ValueError, KeyError, TypeError):
        others = {"unknown": "no evaluation of this program"}
    if list(map(os.path.abspath, others.values())) == [
        *map(os.path.abspath, own.values())
    ]:
        return
    raise UserError(
        f"{path} has the results of {listed(others)}, and this would write those of "
        f"{listed(own)} over them; name another folder with --config.run_dir=DIR."
    )


def listed(names: dict[str, str]) -> str:
    """`model A, engine B`."""
    return ", ".join(f"{key} {value}" for key, value in names.items())

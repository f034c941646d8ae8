"""The named sets of problems of an evaluation."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Problem

ENTRY = re.compile(r"([\w.-]+|\*)(?:@(\d+))?")


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """A named set of problems."""

    name: str
    problems: tuple[Problem, ...]
    samples: int  # attempts at each
    sampled: bool  # from `name@k`: sampled even if other sets are greedy


def parse(entry: str) -> tuple[str, int | None]:
    """(name, samples) of `name` or `name@k`."""
    match = ENTRY.fullmatch(entry)
    if not match or match[2] == "0":
        raise UserError(
            f"eval_sets names {entry!r}; write a set's name, name@k for k samples, or "
            "* for all files in config.data."
        )
    return match[1], int(match[2]) if match[2] else None


def is_files(data: str) -> bool:
    """True if `data` names files, which are then the only sets."""
    return bool(data) and not Path(data).is_dir()


def file_sources(data: str) -> dict[str, str]:
    """Paths by set name, from a folder of JSONL files or from comma-separated files."""
    folder = Path(data)
    if folder.is_dir():
        paths = sorted(folder.glob("*.jsonl"))
        if not paths:
            raise UserError(f"The folder {data!r} has no *.jsonl files.")
        return {path.stem: str(path) for path in paths}
    names = [part.strip() for part in data.split(",")]
    return {Path(name).stem: name for name in names}


def check_known(names: Sequence[str], sources: Iterable[str], data: str) -> None:
    """Raises UserError for an unknown set."""
    missing = [name for name in names if name not in sources]
    if missing:
        where = f"the folder {data!r}" if data else "the sets known by name"
        raise UserError(
            f"eval_sets names {', '.join(missing)}, not among {where}: "
            f"{', '.join(sorted(sources))}."
        )


def spread(problems: tuple[Problem, ...], count: int) -> tuple[Problem, ...]:
    """`count` evenly spaced problems; all if `count` is 0."""
    size = len(problems)
    count = min(count or size, size)
    return tuple(problems[index * size // count] for index in range(count))

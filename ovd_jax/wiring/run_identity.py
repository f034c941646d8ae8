"""Guards a run directory: one process at a time, and only the run that began there.

Another experiment in it would show the results of the first as its own.
"""

import contextlib
import functools
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.cli.knobs import knobs
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links, write_text
from ovd_jax.multihost.processes import broadcast_result, check_devices
from ovd_jax.reporting.run_dir import read_metrics

# Knobs, or groups, that may change when a run resumes: they do not decide what the next
# step learns, except for the rounding of sums.
MAY_CHANGE = {
    "run_dir", "resume", "loggers", "log_every", "checkpoint_every", "export_dtype",
    "mesh", "distributed", "collapse", "max_skipped",
    # evaluation
    "evaluate", "eval_every", "eval_problems", "eval_samples", "eval_temperature",
    "eval_rows", "eval_sets", "averaged_sets", "eval_sampled_temperature", "eval_cache",
    "engine", "engine_served_name",
    "test_threshold", "test_score_rule", "test_replaced_steps",
    # patience with servers, and paths
    *(
        f"{server}.{knob}"
        for server in ("teacher", "search")
        for knob in (
            "timeout_s", "retries", "on_failure", "max_concurrency", "api_key_env",
            "allow_http",
        )
    ),
    "search.index_dir", "search.cache",
    # memory and speed
    "microbatch_tokens", "chunk", "remat", "attention", "length_multiple", "min_rows",
    "prompt_multiple", "teacher.rows",
}  # fmt: skip
MAY_MOVE = {
    "teacher.url",
    "search.url",
    "continuer.url",
}  # to another server, not to none
_NAMED = 5  # differing knobs in a message


def owns_run_dir(default: str) -> Callable:
    """A decorator: runs `main(config)` while it holds `config.run_dir`, if that is new
    or holds the run that `config` describes.

    Knobs that the run's config lacks have the values of the file `default`. Raises
    UserError, on all processes. With `config.resume` False the old folder is renamed
    first.
    """

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def run(config):
            check_devices()
            folder = Path(config.run_dir)
            with contextlib.ExitStack() as stack:

                def begin():
                    if not config.resume:
                        move_aside(folder)
                    stack.enter_context(locked(folder))
                    check_same_run(config, folder, default=default)

                broadcast_result(begin)
                return main(config)

        return run

    return decorate


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run directory, and creates it if needed. Raises UserError if another
    process holds it, or if it contains a symbolic link.

    The operating system releases the lock when the process ends in any way.
    """
    folder.resolve().mkdir(parents=True, exist_ok=True)
    refuse_links(folder)  # a stranger's folder may have the lock's own files as links
    lock, owner = FileLock(folder / "run.lock"), folder / "run.lock.json"
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"{folder} is in use by {_named(owner)}. Wait for it or end it, or name "
            "another folder with --config.run_dir=DIR."
        ) from None
    try:
        own = {"pid": os.getpid(), "host": socket.gethostname()}
        write_text(owner, json.dumps(own) + "\n")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _named(owner: Path) -> str:
    """The process named in the file beside a lock."""
    try:
        own = json.loads(owner.read_text("utf-8"))
        return f"process {own['pid']} on {own['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def move_aside(folder: Path) -> None:
    """Renames the folder of a run, so that another may begin in its place."""
    if not is_begun(folder):
        return
    with locked(folder):
        pass  # a running run keeps its folder
    folder = folder.resolve()
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    folder.rename(aside)
    print(f"The run in {folder} is now in {aside}.", file=sys.stderr)


def is_begun(folder: Path) -> bool:
    """True if another run would destroy data in this folder."""
    metrics = folder / "metrics.jsonl"
    return has_checkpoints(folder) or (metrics.is_file() and metrics.stat().st_size > 0)


def has_checkpoints(folder: Path) -> bool:
    """True if a run has checkpoints to resume from."""
    return any(path.name.isdigit() for path in (folder / "checkpoints").glob("*"))


def check_same_run(config: ConfigDict, folder: Path, *, default: str) -> None:
    """Raises UserError if `config` does not describe the run in `folder`, or if that
    run cannot be resumed."""
    if not is_begun(folder):
        return
    begun = f"{folder} has a run already"
    if not (folder / "config.json").is_file():
        raise UserError(f"{begun}, whose config.json is missing. {remedy()}")
    saved = flags.load(folder, default=default)
    if changed := differences(saved, config, ignored=ignored(folder)):
        more = len(changed) - _NAMED
        others = f" and {more} more knobs" if more > 0 else ""
        raise UserError(
            f"{begun}, of another config: {', '.join(changed[:_NAMED])}{others}. "
            f"{remedy()}"
        )
    if not has_checkpoints(folder) and (steps := lost_steps(saved, folder)):
        raise UserError(
            f"{begun}, of {steps} logged steps, but its checkpoints are gone: to begin "
            f"again would drop these. Put the checkpoints back. {remedy()}"
        )


def remedy() -> str:
    """The advice for a folder that belongs to another run."""
    return (
        "Name another folder with --config.run_dir=DIR, or begin anew in this one with "
        "--config.resume=False, which moves the old run aside."
    )


def ignored(folder: Path) -> set[str]:
    """Knobs that may change in this run: the model's name, if its weights are known by
    their fingerprint."""
    return {"model"} if (folder / "origin.json").is_file() else set()


def differences(
    saved: ConfigDict, config: ConfigDict, *, ignored: set[str]
) -> list[str]:
    """The changed knobs, with both values, that may not change."""
    before, now = (
        {name: value for name, (_, value) in knobs(each).items()}
        for each in (saved, config)
    )
    missing = object()
    changed = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, missing), now.get(name, missing)
        if old == new or name in ignored or may_become(name, old, new):
            continue
        if missing in (old, new):
            there = "there" if new is missing else "here"
            changed.append(f"{name} (a knob {there} alone)")
        else:
            changed.append(f"{name} (there {old!r}, here {new!r})")
    return changed


def may_become(name: str, old: object, new: object) -> bool:
    """True if a run may resume with another value of a knob."""
    if name in MAY_CHANGE or name.split(".")[0] in MAY_CHANGE:
        return True
    if name in MAY_MOVE:
        return bool(old and new)
    grows = isinstance(old, int) and isinstance(new, int) and new > old
    return name == "num_steps" and grows


def lost_steps(saved: ConfigDict, folder: Path) -> int:
    """The number of logged steps, if a run had checkpoints and lost them."""
    rows = read_metrics(folder)
    steps = rows[-1]["step"] + 1 if rows else 0
    # A second checkpoint is saved only after the first is complete.
    due = 2 * saved.checkpoint_every
    kept_some = (due and steps > due) or (folder / "export").is_dir()
    return steps if kept_some or not (folder / "checkpoints").is_dir() else 0

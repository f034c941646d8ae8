"""The files of a run: metrics, samples, TensorBoard events, other loggers."""

import datetime
import importlib
import io
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ovd_jax.errors import UserError
from ovd_jax.files import open_rows_file, write_text
from ovd_jax.jsonl import read_object

_ROW = re.compile(rb'\{"step": (\d{1,18})(?:, .*)?\}\n', re.DOTALL)  # of `write_rows`

Log = Callable[[int, Mapping[str, float]], None]  # step, scalars
Close = Callable[[], None]


class RunDir:
    """The directory of one run, opened so that its next row is that of `start_step`.

    Rows of later steps, left by a process that was killed before its checkpoint, are
    dropped: a resumed run writes them again. Every `log*` call hands its rows to the
    operating system before it returns, so `kill -9` loses none of a finished step.

    After a loss of power the run goes on from the last checkpoint that was finished,
    and the rows of all steps before it are there: `sync` puts them on the disk before
    a checkpoint is begun. What was written since may be gone or garbage, and is
    dropped. `config.json`, `origin.json` and `date.txt` are written before any step.
    """

    def __init__(
        self,
        path: str | Path,
        start_step: int,
        loggers: tuple[str, ...] = ("tensorboard",),
        config: dict | None = None,  # shown by wandb and trackio
    ):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        # Before any file is touched: a missing package must not cost a run its rows.
        for name in loggers:
            check_logger(name)
        self._metrics = open_rows(self.path / "metrics.jsonl", start_step)
        self._samples = open_rows(self.path / "samples.jsonl", start_step)
        self._loggers = [
            LOGGERS[name](self.path, start_step, config or {}) for name in loggers
        ]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one row; lists (a score histogram) go to `metrics.jsonl` only."""
        row = {name: plain(value) for name, value in metrics.items()}
        write_rows(self._metrics, step, [row])
        scalars = {
            name: value for name, value in row.items() if isinstance(value, int | float)
        }
        for log, _ in self._loggers:
            log(step, scalars)

    def log_samples(self, step: int, rows: Iterable[Mapping]) -> None:
        """Writes one row a sample, each with its step."""
        write_rows(self._samples, step, rows)

    def sync(self) -> None:
        """Returns when all rows so far are on the disk."""
        for file in (self._metrics, self._samples):
            if not file.closed:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Flushes the loggers, puts all rows on the disk and closes every file."""
        for _, close in self._loggers:
            close()
        self.sync()
        self._metrics.close()
        self._samples.close()

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_origin(path: str | Path, origin: dict, *, resumed: bool) -> None:
    """Writes the origin of a run to `origin.json`, or raises UserError if a run that is
    `resumed` started from something else.

    A resumed run needs its origin again: frozen weights and the reference.
    """
    file = Path(path) / "origin.json"
    if resumed and file.is_file():
        before = read_object(file)
        if before.get("fingerprint") != origin["fingerprint"]:
            raise UserError(
                f"The run in {path} started from {before.get('model')} with other "
                f"weights than {origin['model']} has now. Put those back, or name "
                "another run_dir."
            )
        return
    write_text(file, json.dumps(origin, indent=2) + "\n")


def first_date(path: str | Path) -> str:
    """The day, YYYY-MM-DD, of the first start in a run directory; `date.txt` keeps it,
    so that a run resumed later has the same prompts."""
    file = Path(path) / "date.txt"
    if file.is_file():
        return checked_date(file.read_text("utf-8", "replace").strip(), str(file))
    date = datetime.date.today().isoformat()
    write_text(file, date + "\n")
    return date


def checked_date(date: str, source: str) -> str:
    """Returns `date`. Raises UserError if it is not a date."""
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        raise UserError(f"{source} is {date!r}; write it as 2026-07-31.") from None
    return date


def read_metrics(path: str | Path) -> list[dict]:
    """The rows of a `metrics.jsonl`, or of the one in a run directory.

    Safe while a run is writing: an incomplete last line is left out.
    """
    path = Path(path)
    return list(read_rows(path / "metrics.jsonl" if path.is_dir() else path))


def plain(value: Any) -> Any:
    """`value` as JSON: arrays as lists, NaN and infinities as None."""
    if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: object) -> str:
    """One line of ASCII: a lone surrogate in sampled text is escaped, not an error."""
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False, default=str)


def write_rows(file: TextIO, step: int, rows: Iterable[Mapping]) -> None:
    """Appends all rows of a step at once and hands them to the operating system."""
    # Named twice: the step comes first in the line, and a row's own does not win.
    steps = {"step": step}
    file.write("".join(to_json(steps | dict(row) | steps) + "\n" for row in rows))
    file.flush()


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a run, without a last line torn by a killed process. Raises UserError
    for any other broken line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                if next(file, None) is None:
                    return
                row = error
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                why = f" ({row})" if isinstance(row, Exception) else ""
                raise UserError(
                    f"{path}, line {number} is no row of a step{why}: {line[:60]!r}. "
                    "Delete that line, or the file."
                )
            yield row


def open_rows(path: Path, start_step: int) -> TextIO:
    """Opens `path` for appending, cut off after the rows before `start_step`.

    Raises UserError, and cuts nothing, if a damaged line precedes such rows.
    """
    file = open_rows_file(path)
    end = end_of_rows(file, path, start_step)
    os.ftruncate(file.fileno(), end)
    os.fsync(file.fileno())
    file.seek(end)
    return io.TextIOWrapper(file, encoding="ascii")


def end_of_rows(file: Iterable[bytes], path: Path, start_step: int) -> int:
    """The offset in `file` after the rows before `start_step`; rows are ordered by
    step. Rows are not parsed: there may be gigabytes of them."""
    offset, end, damaged = 0, None, 0
    for number, line in enumerate(file, start=1):
        row = _ROW.fullmatch(line)
        earlier = row is not None and int(row[1]) < start_step
        if earlier and damaged:
            raise UserError(
                f"{path}, line {damaged} is not JSON, and rows of steps before "
                f"{start_step} come after it. Delete that line, or the file."
            )
        if not earlier and end is None:
            end, damaged = offset, 0 if row else number
        offset += len(line)
    return offset if end is None else end


def check_logger(name: str) -> None:
    """Raises UserError with a remedy if logger `name` cannot be used."""
    if name not in LOGGERS:
        raise UserError(f"Unknown logger {name!r}; choose from {', '.join(LOGGERS)}.")
    package = "tensorboardX" if name == "tensorboard" else name
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"Logger {name!r} needs the package {package} ({error}): "
            f"`pip install {package}`, or leave it out of the loggers."
        ) from error


def _tensorboard(path: Path, start_step: int, config: dict) -> tuple[Log, Close]:
    from tensorboardX import SummaryWriter

    # Two starts within a second would otherwise share, and overwrite, one file.
    suffix = f".{start_step}.{os.getpid()}"
    writer = SummaryWriter(
        str(path), purge_step=start_step, flush_secs=10, filename_suffix=suffix
    )

    def log(step, scalars):
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def _wandb(path: Path, start_step: int, config: dict) -> tuple[Log, Close]:
    import wandb  # type: ignore  # an extra that a user installs

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "ovd_jax"),
        name=path.name,
        id=_run_id(path / "wandb_id.txt", start_step),
        # Steps it has seen it ignores, which is right: resuming replays them exactly.
        resume="allow",
        dir=str(path),
        config=config,
    )
    return (lambda step, scalars: run.log(scalars, step=step)), run.finish


def _trackio(path: Path, start_step: int, config: dict) -> tuple[Log, Close]:
    import trackio  # type: ignore  # an extra that a user installs

    run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", "ovd_jax"),
        name=f"{path.name}-{_run_id(path / 'trackio_id.txt', start_step)}",
        resume="allow",
        config=config,
    )
    return (lambda step, scalars: run.log(scalars, step=step)), trackio.finish


def _run_id(file: Path, start_step: int) -> str:
    """The run's name at a logging service: kept when resuming, new from step 0."""
    if start_step == 0 or not file.exists():
        write_text(file, secrets.token_hex(4))
    return file.read_text()


LOGGERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}

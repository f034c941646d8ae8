"""Shows a run: a bar on a terminal, plain lines elsewhere, and result tables."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich import box
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ovd_jax.text import one_line

SHOWN = (  # metric, its name on the screen, format
    ("loss", "loss", ".4f"),
    ("reward_before", "reward", ".2f"),
    ("acceptance_rate", "alpha", ".2f"),
    ("score_mean", "score", ".1f"),
    ("accuracy", "accuracy", ".1%"),
    ("eval_accuracy", "held-out", ".1%"),
    ("tokens_per_s", "tok/s", ",.0f"),
)
LINE_SHARE = 0.1  # of all steps between two plain lines
LINE_SECONDS = 30.0  # or this much time, whichever comes first


class Progress:
    """Shows a training run of `total` steps, the first `start` of them done, on stderr.

    Stdout is not used: its last line is the program's JSON.
    """

    def __init__(self, total: int, start: int = 0):
        console = Console(stderr=True)
        live = console.is_terminal and not console.is_dumb_terminal
        self._view = _Bar(console, total, start) if live else _Lines(total, start)
        self._last: dict[str, float] = {}

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows that `step`, counted from 0, is done."""
        # Kept from earlier steps, because held-out accuracy is not measured at each.
        self._last |= {name: metrics[name] for name, _, _ in SHOWN if name in metrics}
        self._view.show(step + 1, describe(self._last))

    def __enter__(self) -> "Progress":
        self._view.start()
        return self

    def __exit__(self, *_) -> None:
        self._view.stop()


def describe(metrics: Mapping[str, float]) -> str:
    """The metrics for the screen, in one line."""
    # A policy-gradient loss says little; next to a reward it only takes room.
    hidden = {"loss"} if "reward_before" in metrics else set()
    return "  ".join(
        f"{label} {float(metrics[name]):{form}}"
        for name, label, form in SHOWN
        if metrics.get(name) is not None and name not in hidden
    )


class _Lines:
    """A line now and then: for a file, a pipe or CI."""

    def __init__(self, total: int, start: int):
        self._total, self._start = total, start
        self._began = self._shown_at = 0.0
        self._shown = start

    def start(self) -> None:
        self._began = self._shown_at = time.monotonic()

    def show(self, done: int, text: str) -> None:
        now = time.monotonic()
        first, last = self._shown == self._start, done >= self._total
        due = done - self._shown >= LINE_SHARE * self._total
        if not (first or last or due or now - self._shown_at >= LINE_SECONDS):
            return
        self._shown, self._shown_at = done, now
        elapsed = now - self._began
        left = elapsed / max(done - self._start, 1) * (self._total - done)
        clock = f"{_clock(elapsed)} elapsed, {_clock(left)} left"
        share = f"{done / self._total:.0%}"
        print(f"step {done}/{self._total} ({share})  {text}  {clock}", file=sys.stderr)

    def stop(self) -> None:
        sys.stderr.flush()


class _Bar(rich_progress.Progress):
    """A bar with a clock, and a line of metrics under it."""

    def __init__(self, console: Console, total: int, start: int):
        self._text = ""
        super().__init__(
            rich_progress.TextColumn("step"),
            rich_progress.MofNCompleteColumn(),
            rich_progress.BarColumn(bar_width=None),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("elapsed,"),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("left"),
            console=console,
            expand=True,
            # A step may take a minute; a shorter memory would forget it.
            speed_estimate_period=600.0,
            # Where stdout is a file or a pipe it must not go through this console.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._bar = self.add_task("", total=total, completed=start)

    def get_renderables(self):
        yield from super().get_renderables()
        yield Text(self._text, no_wrap=True, overflow="ellipsis", style="dim")

    def show(self, done: int, text: str) -> None:
        self._text = text
        self.update(self._bar, completed=done)


def results_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Prints a table on stdout, names aligned left and all else right.

    Floats are shown to four digits; format others yourself.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row))
    # A pipe has no width of its own, and rich's guess, 80 columns, would cut the table.
    width = None if sys.stdout.isatty() else 240
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    console.print(table)


def _cell(value: object) -> str:
    """A table cell as text; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def _clock(seconds: float) -> str:
    """`0:01:05`."""
    return str(timedelta(seconds=round(seconds)))

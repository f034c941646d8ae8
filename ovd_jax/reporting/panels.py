"""How a panel of a picture looks: colours, lines, and the names at their ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK, GREY, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE = "#0b6fb8", "#d9730d"
# Okabe and Ito's palette: told apart by colour-blind readers too.
PALETTE = (
    BLUE, ORANGE, "#00936b", "#b8528f", "#7b8794", "#c9a200", "#56b4e9", "#1f2933"
)  # fmt: skip
STEP = "training step"
DENSITY = LinearSegmentedColormap.from_list(
    "density", ("#ffffff", "#cfe3f3", "#6fb0dc", BLUE, "#083d66")
)
STYLE: dict[Any, Any] = {  # the keys that matplotlib knows
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.solid_capstyle": "round",
}
PERCENT = PercentFormatter(xmax=1, decimals=0)
DPI = 200
MOST_COLUMNS = 120  # of the heat map: more steps share a column, or it is noise
MARKED_POINTS = 40  # of a line: beyond these its markers only hide it


def margins(between: float = 0.02) -> ConstrainedLayoutEngine:
    """Room around the panels of a picture, in inches; a share of it is between rows."""
    return ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, hspace=between)


def label_axes(axes: Axes, title: str, ylabel: str, xlabel: str = STEP) -> None:
    """Title and labels of a panel, ticked at whole numbers."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ticks = MaxNLocator(7, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10))
    axes.xaxis.set_major_locator(ticks)


def columns(metrics: Sequence[Mapping], *names: str) -> list[np.ndarray]:
    """Steps, then one array a name, with NaN where a row lacks it."""
    return [
        np.array([np.nan if (v := row.get(name)) is None else v for row in metrics])
        for name in ("step", *names)
    ]


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred rolling mean over a fifteenth of the run; NaN is left out of it."""
    if not len(values):
        return values
    window = np.ones(min(max(len(values) // 15, 1), 51) | 1)  # odd: no shift
    known = np.isfinite(values)
    sums = np.convolve(np.where(known, values, 0.0), window)
    counts = np.convolve(known, window)
    cut = slice(len(window) // 2, len(window) // 2 + len(values))
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)[cut]
    return np.where(known, mean, np.nan)


def mean_curve(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """(steps, mean over seeds, their standard deviation) where all of them have run,
    interpolated between their steps."""
    if not curves:
        return np.empty(0), np.empty(0), np.empty(0)
    first = max(curve[0, 0] for curve in curves)
    last = min(curve[-1, 0] for curve in curves)
    steps = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = [np.interp(steps, *curve.T) for curve in curves]
    return steps, np.mean(values, axis=0), np.std(values, axis=0, ddof=len(curves) > 1)


def column_edges(centers: np.ndarray) -> np.ndarray:
    """Borders half-way between the centres; the outer columns are as wide as inward."""
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middles = (centers[1:] + centers[:-1]) / 2
    outer = 2 * centers[0] - middles[0], 2 * centers[-1] - middles[-1]
    return np.concatenate([outer[:1], middles, outer[1:]])


def draw_smoothed(
    axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, text: str
) -> tuple[float, str, str] | None:
    """Draws `values` faintly and their rolling mean; returns the label for its end."""
    known = np.isfinite(values)
    if not known.any():
        return None
    mean = smooth(values)
    axes.plot(steps, values, color=color, alpha=0.22, linewidth=0.8)
    draw_line(axes, steps[known], mean[known], color)
    return mean[known][-1], text.format(mean[known][-1]), color


def draw_line(
    axes: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    color: str,
    *,
    marked: bool = False,
    halo: bool = False,
) -> None:
    """A bold line; marked where asked for, and where a lone point would not show."""
    dots = len(steps) == 1 or (marked and len(steps) <= MARKED_POINTS)
    axes.plot(
        steps, values, color=color, linewidth=1.9, marker="o" if dots else None,
        markersize=4.5, markeredgecolor="white", markeredgewidth=0.8,
        path_effects=[Stroke(linewidth=3.6, foreground="white"), Normal()] * halo,
    )  # fmt: skip


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str] | None]) -> None:
    """Names each line at its right end, moved apart where the names would overlap."""
    named = sorted((end for end in ends if end), key=lambda end: end[0])
    if not named:
        say_missing(axes)
        return
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    wanted = [(value - low) / (high - low) for value, _, _ in named]
    for height, (_, text, color) in zip(spread(wanted), named, strict=True):
        axes.text(
            1.015, height, text, color=color, weight="bold",
            transform=axes.transAxes, va="center", fontsize=8.5,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float = 0.065) -> list[float]:
    """Ascending heights, pushed apart in pairs until they stand `gap` from each
    other."""
    placed = list(heights)
    for _ in range(50):
        for low in range(len(placed) - 1):
            push = max(gap - (placed[low + 1] - placed[low]), 0) / 2
            placed[low] -= push
            placed[low + 1] += push
    return placed


def percent_axis(axes: Axes) -> None:
    """0 to 100 %, with room for lines that lie on either end."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PERCENT)


def say_missing(axes: Axes) -> None:
    """An empty panel says why it is empty."""
    axes.set(xticks=[], yticks=[])
    axes.text(
        0.5, 0.5, "not recorded", color=GREY, transform=axes.transAxes, ha="center"
    )

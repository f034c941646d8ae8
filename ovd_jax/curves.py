"""Pictures of runs: `plot_run` for one, `plot_comparison` for several with seeds.

Built on matplotlib's object interface, so a caller's own pyplot state is left alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
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
STYLE = {
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


def plot_run(
    metrics: Sequence[Mapping],
    path: str | Path,
    *,
    teacher_accuracy: float | None = None,
    title: str | None = None,
) -> None:
    """Draws reward, acceptance, scores and accuracy of one run into a PNG, and of one
    that searches also how often and how well, by source of the questions.

    `metrics` are the rows of `metrics.jsonl`; what they lack is left out.
    """
    searches = any("searches" in row for row in metrics)
    with matplotlib.rc_context(STYLE):
        size = (11, 10.5 if searches else 7)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, hspace=0.03, wspace=0.02)
        panels = figure.subplots(3 if searches else 2, 2).flat
        draw_reward(next(panels), metrics)
        draw_acceptance(next(panels), metrics)
        draw_scores(next(panels), metrics)
        draw_accuracy(next(panels), metrics, teacher_accuracy)
        if searches:
            draw_by_source(next(panels), metrics, "searches", "Searches a question")
            draw_by_source(next(panels), metrics, "em", "Exact matches")
        if title:
            figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, weight="bold")
        FigureCanvasAgg(figure).print_png(path)


def plot_comparison(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[tuple[float, float]]]]],
    path: str | Path,
    *,
    title: str,
    ylabel: str,
) -> None:
    """Draws one colour a label: a thin line for each seed, a bold one for their mean,
    and a band of one standard deviation around it.

    `panels` maps the name of a horizontal axis to a panel, which maps a label to its
    seeds, each a list of (place on that axis, value).
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5 * len(panels), 4.6), dpi=DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (xlabel, series) in zip(all_axes, panels.items(), strict=True):
            label_axes(axes, title, ylabel, xlabel)
            draw_comparison(axes, series)
        FigureCanvasAgg(figure).print_png(path)


def draw_comparison(axes: Axes, series: Mapping[str, Sequence]) -> None:
    """One panel of `plot_comparison`."""
    ends = []
    for index, (label, seeds) in enumerate(series.items()):
        color = PALETTE[index % len(PALETTE)]
        curves = [np.array(sorted(seed), float) for seed in seeds if len(seed)]
        for curve in curves if len(curves) > 1 else []:
            axes.plot(*curve.T, color=color, alpha=0.35, linewidth=0.9)
        places, mean, deviation = mean_curve(curves)
        if len(places):
            band = (mean - deviation, mean + deviation)
            axes.fill_between(places, *band, color=color, alpha=0.12, linewidth=0)
            draw_line(axes, places, mean, color)
            ends.append((mean[-1], f"{label}  {mean[-1]:.3g}", color))
    label_ends(axes, ends)


def draw_reward(axes: Axes, metrics: Sequence[Mapping]) -> None:
    """Mean reward of the student's own trajectories, and with the teacher's put in."""
    label_axes(axes, "Reward before and after replacement", "mean reward")
    steps, before, after = columns(metrics, "reward_before", "reward_after")
    axes.fill_between(
        steps, smooth(before), smooth(after), color=ORANGE, alpha=0.1, linewidth=0
    )
    ends = [
        draw_smoothed(axes, steps, after, ORANGE, "after  {:.2f}"),
        draw_smoothed(axes, steps, before, BLUE, "before  {:.2f}"),
    ]
    label_ends(axes, ends)


def draw_acceptance(axes: Axes, metrics: Sequence[Mapping]) -> None:
    """Acceptance rate, and how much of the batch came from the teacher."""
    title = r"Acceptance rate $\boldsymbol{\alpha_t}$ and the teacher's share"
    label_axes(axes, title, "share of trajectories")
    steps, accepted, teacher = columns(metrics, "acceptance_rate", "teacher_share")
    percent_axis(axes)
    ends = [
        draw_smoothed(axes, steps, accepted, BLUE, "accepted  {:.0%}"),
        draw_smoothed(axes, steps, teacher, ORANGE, "teacher's  {:.0%}"),
    ]
    label_ends(axes, ends)


def draw_scores(axes: Axes, metrics: Sequence[Mapping]) -> None:
    """How the teacher's scores are spread, step by step, and their mean."""
    label_axes(axes, "Scores of the teacher", "score")
    rows = [row for row in metrics if any(row.get("score_histogram") or ())]
    if not rows:
        say_missing(axes)
        return
    counts_NV = np.array([row["score_histogram"] for row in rows], float)
    steps = np.array([row["step"] for row in rows], float)
    groups = np.array_split(np.arange(len(rows)), min(len(rows), MOST_COLUMNS))
    share_VN = np.stack([counts_NV[group].sum(axis=0) for group in groups], axis=1)
    share_VN /= np.maximum(share_VN.sum(axis=0), 1)
    edges = column_edges(np.array([steps[group].mean() for group in groups]))
    levels = counts_NV.shape[1]
    image = axes.pcolormesh(
        edges, np.arange(levels + 1) - 0.5, share_VN, cmap=DENSITY, vmin=0
    )
    axes.set_yticks(range(levels))
    axes.grid(False)
    strip = axes.inset_axes((1.025, 0, 0.025, 1))
    bar = axes.figure.colorbar(image, cax=strip, format=PERCENT)
    bar.set_label("share of a step's scores")
    bar.outline.set_visible(False)
    mean = smooth(counts_NV @ np.arange(levels) / np.maximum(counts_NV.sum(axis=1), 1))
    draw_line(axes, steps, mean, ORANGE, halo=True)
    axes.set_title(f"mean  {mean[-1]:.1f}", loc="right", color=ORANGE, fontsize=9)


def draw_accuracy(axes: Axes, metrics: Sequence[Mapping], teacher: float | None):
    """Accuracy on the training problems as sampled, and on held-out ones."""
    label_axes(axes, "Accuracy", "correct answers")
    steps, train, held_out = columns(metrics, "accuracy", "eval_accuracy")
    percent_axis(axes)
    ends = [draw_smoothed(axes, steps, train, GREY, "training  {:.0%}")]
    measured = np.isfinite(held_out)
    if measured.any():
        draw_line(axes, steps[measured], held_out[measured], BLUE, marked=True)
        last = held_out[measured][-1]
        ends.append((last, f"held-out  {last:.0%}", BLUE))
    if teacher is not None:
        axes.axhline(teacher, color=ORANGE, linewidth=1.2, dashes=(5, 3))
        ends.append((teacher, f"teacher  {teacher:.0%}", ORANGE))
    label_ends(axes, ends)


def draw_by_source(
    axes: Axes, metrics: Sequence[Mapping], name: str, title: str
) -> None:
    """One measure on training questions, and held-out ones, of each source."""
    label_axes(axes, title, "mean of a question")
    labels = dict.fromkeys(
        key for row in metrics for key in row if key.partition("/")[0] == name
    )
    ends = []
    for index, label in enumerate(
        sorted(labels, key=lambda label: (len(label), label))
    ):
        color = PALETTE[index % len(PALETTE)]
        steps, train, held_out = columns(metrics, label, f"eval_{label}")
        measured = np.isfinite(held_out)
        axes.plot(steps, smooth(train), color=color, alpha=0.35, linewidth=0.9)
        if measured.any():
            steps, values = steps[measured], held_out[measured]
            draw_line(axes, steps, values, color, marked=True)
            source = label.partition("/")[2] or "all"
            ends.append((values[-1], f"{source}  {values[-1]:.2f}", color))
    label_ends(axes, ends)


def label_axes(axes: Axes, title: str, ylabel: str, xlabel=STEP) -> None:
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


def draw_smoothed(axes: Axes, steps, values, color: str, text: str):
    """Draws `values` faintly and their rolling mean; returns the label for its end."""
    known = np.isfinite(values)
    if not known.any():
        return None
    mean = smooth(values)
    axes.plot(steps, values, color=color, alpha=0.22, linewidth=0.8)
    draw_line(axes, steps[known], mean[known], color)
    return mean[known][-1], text.format(mean[known][-1]), color


def draw_line(axes: Axes, steps, values, color: str, *, marked=False, halo=False):
    """A bold line; marked where asked for, and where a lone point would not show."""
    dots = len(steps) == 1 or (marked and len(steps) <= MARKED_POINTS)
    axes.plot(
        steps, values, color=color, linewidth=1.9, marker="o" if dots else None,
        markersize=4.5, markeredgecolor="white", markeredgewidth=0.8,
        path_effects=[Stroke(linewidth=3.6, foreground="white"), Normal()] * halo,
    )  # fmt: skip


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str] | None]) -> None:
    """Names each line at its right end, moved apart where the names would overlap."""
    ends = sorted((end for end in ends if end), key=lambda end: end[0])
    if not ends:
        say_missing(axes)
        return
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    wanted = [(value - low) / (high - low) for value, _, _ in ends]
    for height, (_, text, color) in zip(spread(wanted), ends, strict=True):
        place = dict(transform=axes.transAxes, va="center", fontsize=8.5)
        axes.text(1.015, height, text, color=color, weight="bold", **place)


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
    place = dict(transform=axes.transAxes, ha="center")
    axes.text(0.5, 0.5, "not recorded", color=GREY, **place)

"""Pictures of runs: `plot_run` for one, `plot_comparison` for several with seeds.

Built on matplotlib's object interface, so a caller's own pyplot state is left alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ovd_jax.reporting.panels import (
    BLUE,
    DENSITY,
    DPI,
    GREY,
    MOST_COLUMNS,
    ORANGE,
    PALETTE,
    PERCENT,
    STYLE,
    column_edges,
    columns,
    draw_line,
    draw_smoothed,
    label_axes,
    label_ends,
    margins,
    mean_curve,
    percent_axis,
    say_missing,
    smooth,
)


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
        figure = Figure(figsize=size, dpi=DPI, layout=margins(between=0.03))
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
        figure = Figure(figsize=(7.5 * len(panels), 4.6), dpi=DPI, layout=margins())
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
    counts = np.array([row["score_histogram"] for row in rows], float)
    steps = np.array([row["step"] for row in rows], float)
    groups = np.array_split(np.arange(len(rows)), min(len(rows), MOST_COLUMNS))
    shares = np.stack([counts[group].sum(axis=0) for group in groups], axis=1)
    shares /= np.maximum(shares.sum(axis=0), 1)
    edges = column_edges(np.array([steps[group].mean() for group in groups]))
    levels = counts.shape[1]
    image = axes.pcolormesh(
        edges, np.arange(levels + 1) - 0.5, shares, cmap=DENSITY, vmin=0
    )
    axes.set_yticks(range(levels))
    axes.grid(False)
    strip = axes.inset_axes((1.025, 0, 0.025, 1))
    bar = axes.figure.colorbar(image, cax=strip, format=PERCENT)
    bar.set_label("share of a step's scores")
    bar.outline.set_visible(False)
    mean = smooth(counts @ np.arange(levels) / np.maximum(counts.sum(axis=1), 1))
    draw_line(axes, steps, mean, ORANGE, halo=True)
    axes.set_title(f"mean  {mean[-1]:.1f}", loc="right", color=ORANGE, fontsize=9)


def draw_accuracy(
    axes: Axes, metrics: Sequence[Mapping], teacher: float | None
) -> None:
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

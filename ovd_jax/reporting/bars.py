"""Bars with error bars: what runs amount to on each of several sets."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ovd_jax.reporting.panels import DPI, INK, PALETTE, PERCENT, STYLE, margins


def plot_bars(
    series: Mapping[str, Mapping[str, Mapping[str, float]]],
    path: str | Path,
    *,
    title: str,
    ylabel: str,
) -> None:
    """Draws one colour a label, one group of bars a set.

    `series` maps a label to its sets, each with `mean` and `error`.
    """
    sets = list(dict.fromkeys(name for of in series.values() for name in of))
    width = 0.8 / len(series)
    with matplotlib.rc_context(STYLE):
        size = (max(6.0, 1.2 + 0.35 * len(sets) * (len(series) + 1)), 4.4)
        figure = Figure(figsize=size, dpi=DPI, layout=margins())
        axes = figure.subplots()
        for index, (label, of) in enumerate(series.items()):
            there = [i for i, name in enumerate(sets) if name in of]
            places = np.array(there) + (index - (len(series) - 1) / 2) * width
            axes.bar(
                places,
                [of[sets[i]]["mean"] for i in there],
                width * 0.92,
                yerr=[of[sets[i]]["error"] for i in there],
                color=PALETTE[index % len(PALETTE)],
                ecolor=INK,
                capsize=2.5,
                error_kw={"elinewidth": 0.9},
                label=label,
            )
        axes.set(title=title, ylabel=ylabel)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(sets)), sets, rotation=20 if len(sets) > 5 else 0)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(False, axis="x")
        axes.legend(frameon=False, fontsize=8.5)
        FigureCanvasAgg(figure).print_png(path)

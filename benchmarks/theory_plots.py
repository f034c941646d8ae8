"""The plot of benchmarks/theory.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLORS = ("#0b6fb8", "#d9730d", "#3a923a", "#8e4ec6")
STYLES = (":", "--", "-")


def plot(result: dict, path: Path) -> None:
    """Bias, variance, acceptance and rewards in training, quantization."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    plot_bias(result["bias"], axes[0, 0])
    plot_variance(result["variance"], axes[0, 1])
    plot_training(result["training"], axes[1, 0])
    plot_quantization(result["quantization"], axes[1, 1])
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def plot_bias(rows: list[dict], ax) -> None:
    """Distance from each gradient, in what chance alone gives."""
    counts = [row["trajectories"] for row in rows]
    names = [name for name in rows[0] if name.startswith("from that")]
    for name, color in zip(names, COLORS, strict=False):
        distances = [row[name] ** 0.5 for row in rows]
        ax.loglog(counts, distances, "o-", color=color, label=name)
    ax.axhline(1, color="#888888", lw=0.8, ls="--")
    ax.set(
        xlabel="trajectories an estimate", ylabel="distance / standard error",
        title="The estimator of eq. 26 and three gradients",
    )  # fmt: skip


def plot_variance(rows: list[dict], ax) -> None:
    """Variance against threshold, one line a pair of student and teacher."""
    pairs = sorted({(row["student"], row["teacher"]) for row in rows})
    students, teachers = (sorted(set(values)) for values in zip(*pairs, strict=True))
    for student, teacher in pairs:
        some = [r for r in rows if (r["student"], r["teacher"]) == (student, teacher)]
        thresholds = sorted({row["threshold"] for row in some})
        means = []
        for threshold in thresholds:
            here = [row for row in some if row["threshold"] == threshold]
            means.append(np.mean([r["with_rejection"] / r["plain"] for r in here]))
            if all(row["eq_8"] for row in here):
                ax.plot(threshold, means[-1], "o", color="black", ms=7, mfc="none")
        ax.plot(
            thresholds, means,
            color=COLORS[students.index(student) % len(COLORS)],
            ls=STYLES[teachers.index(teacher) % len(STYLES)],
            label=f"student {student:g}, teacher {teacher:g}",
        )  # fmt: skip
    ax.plot([], [], "o", color="black", mfc="none", label="eq. 8 holds")
    ax.axhline(1, color="#888888", lw=0.8, ls="--")
    ax.set_yscale("log")
    ax.set(
        xlabel="threshold", ylabel="variance / that without rejection",
        title="Variance of one trajectory's gradient",
    )  # fmt: skip


def plot_training(runs: list[dict], ax) -> None:
    """Acceptance drawn through, the student's reward dotted."""
    for run, color in zip(runs, COLORS, strict=True):
        label = f"{run['judge']} judge, threshold {run['threshold']}"
        steps = range(len(run["rows"]))
        alphas = [row["alpha"] for row in run["rows"]]
        rewards = [row["student"] for row in run["rows"]]
        ax.plot(steps, alphas, color=color, label=label)
        ax.plot(steps, rewards, ":", color=color)
    ax.axhline(runs[0]["teacher"], color="#888888", lw=0.8, ls="--")
    ax.set(
        xlabel="exact gradient steps", ylim=(0, 1.02), ylabel="alpha, J(student)",
        title="Acceptance (solid) and reward (dotted; dashed: J(teacher))",
    )  # fmt: skip


def plot_quantization(rows: list[dict], ax) -> None:
    """Mean and largest error against v, beside the bound."""
    lines = (
        ("floor", "mean, ends of cells", "v:"),
        ("floor", "mean, uniform quality", "s-"),
        ("round", "largest, uniform quality", "^:"),
        ("round", "mean, uniform quality", "o-"),
    )
    for how, name, style in lines:
        some = [row for row in rows if row["quantizer"] == how]
        levels = [row["v"] for row in some]
        color = COLORS[0] if how == "round" else COLORS[1]
        errors = [row[name] * row["bound"] for row in some]
        ax.loglog(levels, errors, style, color=color, label=f"{how}: {name}")
    ax.loglog(levels, [row["bound"] for row in some], "k--", lw=0.8, label="eq. 10")
    ax.set(xlabel="levels v", ylabel="error", title="Quality as a score of v levels")

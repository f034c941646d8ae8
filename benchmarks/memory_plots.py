"""The plots of benchmarks/memory.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import record

COLORS = {
    "ovd": "#0b6fb8", "dense": "#c0392b", "chunked": "#3a923a", "top_k": "#d9730d"
}  # fmt: skip
NAMES = {
    "ovd": "OVD", "dense": "on-policy KD, dense", "chunked": "on-policy KD, chunked",
    "top_k": "on-policy KD, top-k",
}  # fmt: skip
GIB = 2**30


def plot(result: dict, output: record.Output) -> None:
    """The paper's figures, then what was compiled, a figure a student."""
    figures(result["paper"], output.path("_paper.png"))
    for student in sorted({row["student"] for row in result["points"]}):
        rows = [row for row in result["points"] if row["student"] == student]
        name = student.split("/")[-1].lower()
        compiled(student, rows, output.path(f"_{name}.png"))


def figures(paper: dict, path: Path) -> None:
    """Figures 1 and 2: logits and cache by length and by samples."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for ax, name, axis in zip(
        axes, ("figure_1", "figure_2"), ("length", "samples"), strict=True
    ):
        rows = paper[name]
        values = [row[axis] for row in rows]
        for what, color in (("logits", COLORS["dense"]), ("cache", COLORS["ovd"])):
            heights = [row[f"{what} GB"] for row in rows]
            ax.loglog(values, heights, "o-", color=color, label=what)
        decorate(ax)
        ax.set_ylabel("GB (10^9 bytes)")
    axes[0].set_xlabel("tokens L, one trajectory")
    axes[1].set_xlabel(f"trajectories N of {paper['figure_2'][0]['length']} tokens")
    axes[0].legend(frameon=False)
    figure.suptitle(f"{paper['model']}: logits by eq. 1 (float32 and bfloat16), cache")
    save(figure, path)


def compiled(student: str, rows: list[dict], path: Path) -> None:
    """Temporaries by L at one sample and by N, a row of axes a platform."""
    platforms = sorted({row["platform"] for row in rows})
    figure, axes = plt.subplots(
        len(platforms), 2, figsize=(11, 4 * len(platforms)), squeeze=False
    )
    several = [row["length"] for row in rows if row["samples"] > 1]
    short = min(several, default=min(row["length"] for row in rows))
    for platform, pair in zip(platforms, axes, strict=True):
        here = [row for row in rows if row["platform"] == platform]
        by_length = [row for row in here if row["samples"] == 1]
        by_samples = [row for row in here if row["length"] == short]
        curves(by_length, "length", pair[0])
        curves(by_samples, "samples", pair[1])
        pair[0].set(xlabel="tokens L, one trajectory", title=platform)
        pair[1].set(xlabel=f"trajectories N of {short} tokens", title=platform)
    shown = next(ax for ax in axes.flat if ax.axison)
    shown.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{student}: temporaries of the gradient on one device")
    save(figure, path)


def curves(rows: list[dict], axis: str, ax) -> None:
    """A curve a method, and eq. 1; what does not fit into the device is a cross at all
    that was wanted. Without rows there are no axes: they could not be logarithmic."""
    if not rows:
        ax.set_axis_off()
        return
    for method, color in COLORS.items():
        some = sorted(
            (row for row in rows if row["method"] == method), key=lambda r: r[axis]
        )
        fits = [row for row in some if "temporaries" in row]
        ax.plot(
            [row[axis] for row in fits],
            [row["temporaries"] / GIB for row in fits],
            "o-", color=color, label=NAMES[method],
        )  # fmt: skip
        over = [row for row in some if "wanted" in row]
        heights = [row["wanted"] / GIB for row in over]
        ax.plot([row[axis] for row in over], heights, "x", color=color)
    points = sorted({(row[axis], row["eq_1"]) for row in rows})
    heights = [bytes_ / GIB for _, bytes_ in points]
    ax.plot([value for value, _ in points], heights, "k--", lw=1, label="eq. 1")
    ax.set(xscale="log", yscale="log")
    decorate(ax)
    ax.set_ylabel("GiB")


def decorate(ax) -> None:
    """What all axes have."""
    ax.set_xscale("log", base=2)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)


def save(figure, path: Path) -> None:
    """Writes and closes a figure."""
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)

"""Files, tables and plots of a judge's audit."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ovd_jax.evaluation.known_steps import Judged
from ovd_jax.files import refuse_links, whole_file, write_text
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import to_json

_log = logging.getLogger(__name__)
_USEFUL = 0.6  # AUC


def write_report(folder: Path, judged: Sequence[Judged], result: dict) -> None:
    """Writes every step's score, the measures and a plot into `folder`, and prints the
    tables; warns of a judge that is hardly better than chance."""
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    write_steps(folder / "steps.jsonl", judged)
    if (result["auc_steps"] or 0.0) < _USEFUL:
        _log.warning(
            "%s hardly tells right steps from wrong ones (AUC %.2f, chance is 0.5): "
            "no threshold makes it a judge.",
            result["teacher"], result["auc_steps"] or 0.0,
        )  # fmt: skip
    write_text(folder / "audit.json", to_json(result) + "\n")
    plot(result, folder / "audit.png")
    print_known(result)
    if "on_policy" in result:
        print_on_policy(result["on_policy"])


def write_steps(path: Path, judged: Sequence[Judged]) -> None:
    """One line a known step, with its score."""
    with whole_file(path) as file:
        for row in judged:
            first = row.solution.first_error
            for index, score in enumerate(row.steps):
                line = {"id": row.solution.id, "step": index, "right": index != first}
                line |= dataclasses.asdict(score)
                file.write(to_json(line).encode() + b"\n")


def print_known(result: dict) -> None:
    """The table of thresholds on solutions whose first wrong step is known."""
    results_table(
        f"{result['teacher']} as a judge: AUC {shown(result['auc_steps'], '.3f')} of "
        f"{result['steps']} steps, {shown(result['auc_solutions'], '.3f')} of "
        f"{result['solutions']} solutions",
        ("threshold", "F1", "first error found", "right ones left alone"),
        [
            (f"{row['threshold']}{' *' if row['f1'] == result['f1'] else ''}",
             *(f"{row[x]:.1%}" for x in ("f1", "found_in_wrong", "none_in_right")))
            for row in result["thresholds"]
        ],
    )  # fmt: skip


def print_on_policy(result: dict) -> None:
    """The table of thresholds on the student's own samples."""
    best = result["recommended_threshold"]
    results_table(
        f"On what {result['student']} samples, {result['accuracy']:.1%} right: AUC "
        f"{shown(result['auc_steps'], '.3f')} of {result['steps']} steps, "
        f"{shown(result['auc_solutions'], '.3f')} of {result['solutions']} solutions",
        ("threshold", "accepted", "accepted that are right", "right ones accepted"),
        [
            (f"{row['threshold']}{' *' if row['threshold'] == best else ''}",
             *(shown(row[x], ".1%")
               for x in ("accepted", "accepted_right", "right_accepted")))
            for row in result["thresholds"]
        ],
    )  # fmt: skip


def shown(value: float | None, form: str) -> str:
    """The number, or a dash for None."""
    return "-" if value is None else format(value, form)


def plot(result: dict, path: Path) -> None:
    """Plots calibration, and F1 at each threshold."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    bins, rows = result["calibration"], result["thresholds"]
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    left.scatter(
        [row["claimed"] for row in bins],
        [row["right"] for row in bins],
        s=[20 + 200 * row["count"] / result["steps"] for row in bins],
    )
    left.set(xlabel="expected score / best score", ylabel="share of right steps")
    left.set_title(f"calibration error {result['calibration_error']:.2f}")
    for name, label in (
        ("f1", "F1"),
        ("found_in_wrong", "first error found"),
        ("none_in_right", "right ones left alone"),
    ):
        right.plot([r["threshold"] for r in rows], [r[name] for r in rows], label=label)
    right.axvline(result["recommended_threshold"], color="0.7", linewidth=1)
    right.set(xlabel="threshold", ylim=(-0.02, 1.02))
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)

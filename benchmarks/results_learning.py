"""The sections of docs/results.md on what is learned, each a function of its JSON that
returns a title and lines."""

from results_early_dip import early_dip
from results_text import number, percent, span, spread, table


def quickstart(result: dict) -> list[str]:
    """The quickstart, seed by seed."""
    held_out = result.get("problems")
    lines = [
        "Quickstart",
        "Held-out accuracy before and after training, and the seconds that the whole "
        "command took.",
        "",
        *table(
            ("seed", "before", "after", "teacher", "seconds"),
            [
                (
                    run["seed"],
                    *(
                        percent(run[f"accuracy_{x}"])
                        for x in ("before", "after", "teacher")
                    ),
                    f"{run['wall_seconds']:.0f}",
                )
                for run in result["runs"]
            ],
        ),
    ]
    if held_out:
        lines += [
            f"Of the {held_out['held_out']} held-out problems {held_out['distinct']} "
            "are different ones. Seeds change the training alone, never the problems.",
            "",
        ]
    curves = [run["curve"] for run in result["runs"] if "curve" in run]
    if curves:
        lines += [first_steps(curves), ""]
    return lines


def first_steps(curves: list[list]) -> str:
    """Whether accuracy falls before it rises."""
    lowest = [min(value for _, value in curve) for curve in curves]
    if all(low >= curve[0][1] for low, curve in zip(lowest, curves, strict=True)):
        return "Whenever it was measured, accuracy was at least that of the start."
    return f"Accuracy falls before it rises: its lowest is {span(lowest)}."


def ovd_vs_rlvr(result: dict) -> list[str]:
    """Thresholds against outcome rewards."""
    lowest = [
        min((value, step) for step, value in curve)
        for name, curves in result["curves"].items()
        for curve in curves
        if name.startswith("OVD")
    ]
    return [
        "OVD and RLVR",
        "The quickstart before its models were made anew, in groups of four; held-out "
        f"accuracy after {result['student_samples']:,} student samples.",
        "",
        *table(
            ("method", "before", "after: mean", "by seed", "mean over the steps"),
            [
                (
                    row["method"],
                    percent(row["before"]),
                    percent(row["after"]),
                    ", ".join(percent(x) for x in row["after_by_seed"]),
                    percent(row["mean_over_steps"]),
                )
                for row in result["rows"]
            ],
        ),
        f"The lowest that OVD is on its way is {span(value for value, _ in lowest)}, "
        f"in the first {max(step for _, step in lowest)} steps.",
        "",
        "![OVD and RLVR](../benchmarks/results/ovd_vs_rlvr.png)",
        "",
    ]


def methods(result: dict) -> list[str]:
    """All methods at equal samples and at equal time."""
    rows = sorted(result["rows"], key=lambda row: -sum(row["by_samples"]))
    last = min(rows, key=lambda row: sum(row["by_seconds"]))
    return [
        "All methods",
        f"The quickstart before its models were made anew; held-out accuracy from "
        f"{percent(rows[0]['before'])}, mean and standard deviation of "
        f"{len(result['seeds'])} seeds, the first of which also chose some learning "
        "rates. Two of the seeds were run on a machine with 16 cores; seconds are the "
        "third's.",
        "",
        *table(
            (
                "method",
                f"after {result['samples']:,} samples",
                f"after {result['seconds']:.0f} s of collecting and learning",
                "a step",
            ),
            [
                (
                    row["method"],
                    spread(row["by_samples"]),
                    spread(row["by_seconds"]),
                    f"{number(row['seconds_a_step'])} s",
                )
                for row in rows
            ],
        ),
        "A teacher whose solutions are nearly always right, and free, is best imitated "
        f"at this size. At equal time `{last['method']}` comes last.",
        "",
        "![All methods](../benchmarks/results/methods.png)",
        "",
    ]


def quickstart_search(result: dict) -> list[str]:
    """The search quickstart, each student with both engines."""
    counts = ("searches/world_1hop", "searches/world_2hop")
    seconds = [
        f"{run['engine']}, seed {run['seed']}: {run['wall_seconds']:.0f} s"
        for run in result["runs"]
    ]
    return [
        "Search quickstart",
        f"Exact match on all held-out questions ({'; '.join(seconds)}). The first run "
        "compiled everything, the others found it compiled.",
        "",
        *table(
            ("trained", "tested with", "all", "1 hop", "2 hops", "searches, 1 hop",
             "searches, 2 hops"),
            [
                (
                    test["trained"],
                    test["tested"],
                    *(
                        percent(test[f"eval_{name}"])
                        for name in ("em", "em/world_1hop", "em/world_2hop")
                    ),
                    *(number(test[f"eval_{name}"]) for name in counts),
                )
                for test in result["tests"]
            ],
        ),
    ]  # fmt: skip


def judge(result: dict) -> list[str]:
    """Teachers as judges."""
    lines = ["Teachers as judges"]
    for part, about in JUDGED.items():
        if found := result.get(part):
            lines += [about, "", *on_policy(found)]
    if found := result.get("slips"):
        lines += [*audit(found["arithmetic"]), *world_slips(found["world"])]
    if found := result.get("processbench"):
        lines += audit(found)
    return lines


JUDGED = {
    "arithmetic": "The quickstart's embedded teacher on what its student samples for "
    "held-out problems, before, halfway and after training.",
    "world": "The search quickstart's environment agent on its student's held-out "
    "conversations.",
}


def on_policy(students: list[dict]) -> list[str]:
    """A judge on what students sample."""
    names = ("accepted", "accepted_right", "right_accepted")
    used = students[0]["threshold"]
    return [
        f"AUC by the probability of a score of {used:g} or more, the threshold that is "
        "used, and by mean scores, in which the grades of right steps count, too:",
        "",
        *table(
            ("student", "right", "right ones with a wrong step",
             f"AUC steps, {used:g} or more", f"AUC solutions, {used:g} or more",
             "AUC steps, mean", "AUC solutions, mean", "calibration error"),
            [
                (
                    own["student"],
                    percent(own["accuracy"]),
                    percent(own["right_with_wrong_steps"]),
                    *(
                        f"{of[x]:.3f}"
                        for of in (at(own, used), own)
                        for x in ("auc_steps", "auc_solutions")
                    ),
                    f"{own['calibration_error']:.3f}",
                )
                for own in students
            ],
        ),
        *table(
            ("student", "threshold", "accepted", "accepted that are right",
             "right ones accepted"),
            [
                (
                    own["student"],
                    f"{row['threshold']:g}",
                    *("-" if row[x] is None else percent(row[x]) for x in names),
                )
                for own in students
                for row in own["thresholds"]
            ],
        ),
    ]  # fmt: skip


def at(own: dict, threshold: float) -> dict:
    """The row of a threshold."""
    return next(row for row in own["thresholds"] if row["threshold"] == threshold)


def audit(found: dict) -> list[str]:
    """A teacher on solutions whose first mistake is known."""
    best = max(found["thresholds"], key=lambda row: row["f1"])
    return [
        f"`{found['teacher']}` on {found['solutions']} solutions "
        f"({found['data']}), {found['wrong_solutions']} of them wrong: AUC "
        f"{found['auc_steps']:.3f} of {found['steps']} steps, "
        f"{found['auc_solutions']:.3f} of whole solutions; F1 of the first "
        f"wrong step {percent(best['f1'])} at threshold {best['threshold']:g}, "
        f"which it recommends; calibration error "
        f"{found['calibration_error']:.2f}.",
        "",
    ]


def world_slips(found: dict) -> list[str]:
    """The environment agent on made-up slips."""
    return [
        f"The environment agent of the search quickstart on {found['turns']} "
        f"turns of {found['conversations']} held-out conversations with made-up slips, "
        f"{found['good_turns']} of them good: AUC {found['auc']:.3f}; "
        f"{percent(found['agreement'])} of its scores are on the right side of "
        f"{found['threshold']}.",
        "",
    ]


def evaluations(result: dict) -> list[str]:
    """SmolLM2 by launch/evaluate.py."""
    return [
        "SmolLM2-135M-Instruct evaluated",
        "Greedy, answers of 160 tokens at most, with the bootstrap's interval.",
        "",
        *table(
            ("set", "problems", "right", "interval", "cut"),
            [
                (
                    name,
                    of["problems"],
                    percent(of["value"]),
                    span((of["low"], of["high"])),
                    percent(of["cut_share"]),
                )
                for part, found in result.items()
                if part != "measured"
                for name, of in found.items()
            ],
        ),
    ]


def discrimination(result: dict) -> list[str]:
    """A simulator as a judge."""
    kinds = ("auc", "other query", "broken query", "other turn")
    return [
        "Does a simulator learn to judge?",
        f"SmolLM2-135M before and after configs/simulator_sft.py, {result['turns']} "
        "good turns against corrupted ones: AUC. At this size no sense of good and bad "
        "turns emerges.",
        "",
        *table(
            ("model", "all", *kinds[1:]),
            [
                (f"`{row['model']}`", *(f"{row[kind]:.3f}" for kind in kinds))
                for row in result["rows"]
            ],
        ),
    ]


def comparisons(result: dict) -> list[str]:
    """The tables of launch/compare.py."""
    lines = ["Comparisons", "Held-out accuracy by launch/compare.py.", ""]
    for name, found in result.items():
        if name == "measured":
            continue
        sets = list(found["rows"][0]["sets"])
        lines += [f"`configs/{name}.py`:", ""]
        lines += table(
            ("run", "seeds", *sets),
            [
                (
                    row["run"],
                    ", ".join(map(str, row["seeds"])),
                    *(
                        f"{percent(row['sets'][x]['mean'])[:-2]} ± "
                        f"{percent(row['sets'][x]['error'])}"
                        for x in sets
                    ),
                )
                for row in found["rows"]
            ],
        )
    return lines


LEARNING = {
    "quickstart": quickstart,
    "early_dip": early_dip,
    "ovd_vs_rlvr": ovd_vs_rlvr,
    "methods": methods,
    "comparisons": comparisons,
    "quickstart_search": quickstart_search,
    "judge": judge,
    "evaluations": evaluations,
    "discrimination": discrimination,
}

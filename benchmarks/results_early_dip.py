"""The section of docs/results.md on the quickstart's first steps."""

import statistics

from results_text import percent, table


def early_dip(result: dict) -> list[str]:
    """What falls in the first steps of the quickstart, and what does not."""
    steps = result["supervised"][0]["steps"]
    lines = [
        "The quickstart's first steps",
        "Measured before the quickstart's models were made anew. Held-out accuracy "
        "where its student began, "
        f"{percent(result['supervised'][0]['before'])}, and after {steps} optimizer "
        "steps of plain fine-tuning on right solutions; a batch of the quickstart has "
        "eight.",
        "",
        *table(
            ("learning rate", "after, seed by seed"),
            [
                (rate, ", ".join(percent(row["after"]) for row in rows))
                for rate, rows in grouped(result["supervised"], "learning_rate")
            ],
        ),
    ]
    if "training" not in result:
        return lines
    steps = [step for step, _ in result["training"][0]["curve"]]
    return [
        *lines,
        "The first batches of the quickstart, and of variants that change one thing "
        "each:",
        "",
        *table(
            ("variant", "seeds", *(f"step {step}" for step in steps)),
            [
                (name, len(rows), *map(percent, means_of(rows)))
                for name, rows in grouped(result["training"], "variant")
            ],
        ),
    ]


def grouped(rows: list[dict], key: str) -> list[tuple]:
    """(value, rows with it), in the order in which they come."""
    return [
        (value, [row for row in rows if row[key] == value])
        for value in dict.fromkeys(row[key] for row in rows)
    ]


def means_of(rows: list[dict]) -> list[float]:
    """The mean of several curves, point by point."""
    curves = [[value for _, value in row["curve"]] for row in rows]
    return [statistics.fmean(values) for values in zip(*curves, strict=True)]

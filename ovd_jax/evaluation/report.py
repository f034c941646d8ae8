"""The report of an evaluation: a table, `results.json` and `items.jsonl`."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ovd_jax.cli import flags
from ovd_jax.evaluation.attempts import Evaluated
from ovd_jax.evaluation.measures import interval, mean_interval, measures
from ovd_jax.files import refuse_links, whole_file
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import to_json


def report(
    folder: Path,
    results: Mapping[str, Sequence[Evaluated]],
    *,
    about: Mapping,
    score_rule: str,
    averaged: Sequence[str],
    seconds: float,
    searches: Mapping[str, float] | None = None,
) -> None:
    """Writes the files into `folder`, prints the table and the summary line.

    `about` has the model, the engine, the task and the testing threshold (0 without a
    teacher). `averaged` names the sets of the average. `searches` are the metrics of
    the searches of this evaluation.
    """
    refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sets = {name: of_set(of) for name, of in results.items()}
    whole = {**about, "sets": sets, "average": average(results, averaged)}
    if searches:
        whole["searches"] = dict(searches)
    write(folder / "results.json", [to_json(whole)])
    rows = (row for name, of in results.items() for row in items(name, of))
    write(folder / "items.jsonl", map(to_json, rows))
    print_table(whole, score_rule)
    flags.summary(
        model=about["model"],
        task=about["task"],
        problems=sum(len(of) for of in results.values()),
        accuracy=whole["average"]["value"],
        low=whole["average"]["low"],
        high=whole["average"]["high"],
        sets={name: values(of) for name, of in sets.items()},
        seconds=round(seconds, 1),
        results=str(folder / "results.json"),
        items=str(folder / "items.jsonl"),
    )


def write(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file atomically."""
    with whole_file(path) as file:
        file.writelines(line.encode("ascii") + b"\n" for line in lines)


def of_set(results: Sequence[Evaluated]) -> dict:
    """All numbers of one set."""
    samples = len(results[0].attempts)
    attempts = [attempt for result in results for attempt in result.attempts]
    grades = [grade for result in results for grade in result.grades]
    measured = {}
    for name, measure in measures(samples).items():
        found = [measure(result) for result in results]
        low, high = interval(found)
        measured[name] = {"value": statistics.fmean(found), "low": low, "high": high}
    return {
        "problems": len(results),
        "samples": samples,
        "measures": measured,
        "reasons": dict(Counter(grade.reason for grade in grades).most_common()),
        "no_answer_share": share(grade.extracted is None for grade in grades),
        "cut_share": share(not attempt.stopped for attempt in attempts),
        "tokens": sum(attempt.tokens for attempt in attempts),
        "facts": totals([attempt.facts for attempt in attempts]),
        "metrics": means([grade.metrics for grade in grades]),
    }


def share(flags_: Iterable[bool]) -> float:
    """Fraction of true values."""
    return statistics.fmean(map(float, flags_))


def totals(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sum of each fact over the attempts that have it."""
    total = Counter()
    for row in rows:
        total.update(row)
    return dict(total)


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the attempts that have it."""
    counts = Counter(name for row in rows for name in row)
    return {name: total / counts[name] for name, total in totals(rows).items()}


def values(of: Mapping) -> dict[str, float]:
    """The plain numbers of a set's measures and metrics."""
    measured = {name: found["value"] for name, found in of["measures"].items()}
    return measured | of["metrics"]


def average(results: Mapping[str, Sequence[Evaluated]], names: Sequence[str]) -> dict:
    """The mean of avg@k over the sets in `names`, or over all sets if none of them was
    evaluated."""
    chosen = [name for name in names if name in results] or list(results)
    rewards = [
        [statistics.fmean(result.rewards) for result in results[name]]
        for name in chosen
    ]
    low, high = mean_interval(rewards)
    value = statistics.fmean(map(statistics.fmean, rewards))
    return {"value": value, "low": low, "high": high, "sets": chosen}


def items(name: str, results: Sequence[Evaluated]) -> Iterator[dict]:
    """One row for each attempt."""
    for result in results:
        problem = dataclasses.asdict(result.problem)
        for sample, (attempt, grade) in enumerate(
            zip(result.attempts, result.grades, strict=True)
        ):
            yield {
                "set": name,
                **{key: problem[key] for key in ("id", "question", "answer")},
                "sample": sample,
                "reward": grade.reward,
                "extracted": grade.extracted,
                "reason": grade.reason,
                "text": attempt.text,
                "tokens": attempt.tokens,
                "stopped": attempt.stopped,
                **attempt.facts,
                **grade.metrics,
            }


def print_table(whole: Mapping, score_rule: str) -> None:
    """Prints one line for each set, and one for the average."""
    sets = whole["sets"]
    metrics = sorted({name for of in sets.values() for name in of["metrics"]})
    rejecting = bool(whole["threshold"])
    cost = shown_cost if rejecting else lambda of: []
    columns = ["set", "problems", "k", "avg@k", "95 % interval", "pass@k"]
    columns += ["no answer", "cut", "tokens", *metrics]
    columns += ["teacher's", "share", "requests", "read", "written"] * rejecting
    rows = [
        [name, of["problems"], of["samples"], *shown_measures(of)]
        + [f"{of['no_answer_share']:.1%}", f"{of['cut_share']:.1%}", of["tokens"]]
        + [of["metrics"].get(name) for name in metrics]
        + cost(of)
        for name, of in sets.items()
    ]
    if len(sets) > 1:
        mean = whole["average"]
        label = f"mean of {len(mean['sets'])} sets"
        rows.append([label, None, None, f"{mean['value']:.1%}", shown_interval(mean)])
        rows[-1] += [None] * (len(columns) - len(rows[-1]))
    title = f"{whole['model']} on {whole['task']}"
    if rejecting:
        title += f", testing threshold {whole['threshold']:g}, {score_rule}"
    results_table(title, columns, rows)


def shown_measures(of: Mapping) -> list[str | None]:
    """avg@k with its interval, and pass@k."""
    k = of["samples"]
    mean = of["measures"][f"avg@{k}"]
    best = of["measures"].get(f"pass@{k}")
    return [
        f"{mean['value']:.1%}",
        shown_interval(mean),
        f"{best['value']:.1%}" if best else None,
    ]


def shown_interval(of: Mapping) -> str:
    """`40.1 to 50.9`."""
    return f"{100 * of['low']:.1f} to {100 * of['high']:.1f}"


def shown_cost(of: Mapping) -> list:
    """The teacher's tokens in the solutions and their share, its requests, and its
    input and output tokens if the server reports them."""
    facts = of["facts"]
    taught = facts["tokens_from_teacher"]
    asked = facts["teacher_scores"] + facts["teacher_demonstrations"]
    tokens = [round(facts[f"teacher_tokens_{way}"]) or None for way in ("in", "out")]
    return [taught, f"{taught / max(of['tokens'], 1):.1%}", asked, *tokens]

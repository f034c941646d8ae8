"""Pieces of docs/results.md."""

import statistics
from collections.abc import Callable, Iterable, Sequence

GIB = 2**30


def lines_of(name: str, section: Callable, result: dict) -> list[str]:
    """A section: what it says of its results, then when and on what they were made."""
    title, *body = section(result)
    runs = result.get("measured") or {"": result["run"]}
    return [f"## {title}", "", f"`python benchmarks/{name}.py`", "", *body, *made(runs)]


def made(runs: dict[str, dict]) -> list[str]:
    """The record of each run; parts that were made together in one line."""
    parts: dict[str, list[str]] = {}
    for part, run in runs.items():
        parts.setdefault(run_line(run), []).append(part)
    lines = [
        f"*{', '.join(names) + ': ' if any(names) else ''}{line}*"
        for line, names in parts.items()
    ]
    return "\n\n".join(lines).split("\n")


def run_line(run: dict) -> str:
    """Date, commit, machine and versions of a run."""
    machine, versions = run["machine"], run["versions"]
    changed = "+" if run["commit"].endswith("+") else ""
    told = [run["date"][:10], f"commit {run['commit'][:7]}{changed}"]
    if machine["processor"] == "not recorded":
        told.append("machine and versions not recorded")
    else:
        told.append(f"{machine['cores']} cores of {machine['processor']}")
        told.append(", ".join(f"{k} {v}" for k, v in versions.items()))
    return "; ".join(told)


def table(columns: Sequence[str], rows: Iterable[Sequence]) -> list[str]:
    """A Markdown table and an empty line."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def percent(value: float) -> str:
    """0.455 is 45.5 %."""
    return f"{100 * value:.1f} %"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares."""
    mean, error = statistics.fmean(values), statistics.stdev(values)
    return f"{100 * mean:.1f} ± {100 * error:.1f} %"


def span(values: Iterable[float]) -> str:
    """The least and the largest share."""
    values = list(values)
    return f"{100 * min(values):.1f} to {100 * max(values):.1f} %"


def number(value: float) -> str:
    """At most three digits behind the point, as many as its size needs."""
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.2f}"


def mib_as_gib(size: float) -> str:
    """MiB in GiB."""
    return f"{size / 1024:.2f} GiB"

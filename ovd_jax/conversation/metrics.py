"""What is logged of conversations with a search engine."""

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence

from ovd_jax.conversation.dialogue import action
from ovd_jax.rollout.trajectory import Group, Trajectory
from ovd_jax.search.tags import ANSWER, SEARCH
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.grading.qa_metrics import exact_match, f1, retrieval_recall


def search_metrics(groups: Iterable[Group]) -> dict[str, float]:
    """Means over the students' own conversations, before anything was replaced; where
    the problems are of several sources, also `em` and `searches` of each, as in
    "searches/nq"."""
    found = [
        (group.problem.source, of_conversation(group.problem, rollout.student))
        for group in groups
        for rollout in group.rollouts
    ]
    rows = [row for _, row in found]
    if not rows:
        return {}
    turns = sum(row["turns"] for row in rows)
    means = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    means["invalid_rate"] = sum(row["invalid"] for row in rows) / turns
    return means | by_source(found, ("em", "searches"))


def by_source(
    found: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str]
) -> dict[str, float]:
    """Means of the values `names` of each source, as "name/source"; nothing where there
    is but one. `found` holds pairs of a source and values."""
    parts = collections.defaultdict(list)
    for source, values in found:
        parts[source].append(values)
    if len(parts) < 2:
        return {}
    return {
        f"{name}/{source}": statistics.fmean(values[name] for values in part)
        for name in names
        for source, part in sorted(parts.items())
    }


def of_conversation(problem: Problem, trajectory: Trajectory) -> dict[str, float]:
    """Of one conversation; `retrieval_recall` is whether a gold answer was read."""
    actions = [action(turn) for turn in trajectory.turns]
    answer = next((act.text for act in actions if act.kind == ANSWER), None)
    pairs = zip(trajectory.turns, trajectory.step_texts, strict=True)
    read = [step[len(turn) :] for turn, step in pairs]
    return {
        "em": exact_match(answer, problem.golds),
        "f1": f1(answer, problem.golds),
        "retrieval_recall": retrieval_recall(read, problem.golds),
        "searches": float(sum(act.kind == SEARCH for act in actions)),
        "turns": float(len(actions)),
        "invalid": float(sum(act.kind == "invalid" for act in actions)),
        "observed_tokens": float(sum(trajectory.observed)),
    }

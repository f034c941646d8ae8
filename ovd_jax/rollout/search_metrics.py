"""What is logged of conversations with a search engine."""

import statistics
from collections.abc import Iterable

from ovd_jax.rollout.trajectory import Group, Trajectory
from ovd_jax.rollout.turns import action
from ovd_jax.search.tags import ANSWER, SEARCH
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.qa_metrics import exact_match, f1, retrieval_recall


def search_metrics(groups: Iterable[Group]) -> dict[str, float]:
    """Means over the students' own conversations, before anything was replaced."""
    rows = [
        of_conversation(group.problem, rollout.student)
        for group in groups
        for rollout in group.rollouts
    ]
    if not rows:
        return {}
    turns = sum(row["turns"] for row in rows)
    means = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    return means | {"invalid_rate": sum(row["invalid"] for row in rows) / turns}


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

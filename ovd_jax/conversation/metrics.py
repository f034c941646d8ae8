"""What is logged of conversations with an environment."""

import collections
import statistics
from collections.abc import Mapping, Sequence

from ovd_jax.conversation.batch import History
from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.conversation.env import Done
from ovd_jax.rollout.trajectory import Group, Trajectory
from ovd_jax.tasks.base import Problem


def conversation_metrics(
    groups: Sequence[Group], dialogue: Dialogue
) -> dict[str, float]:
    """Means over the students' own conversations, before anything was replaced; where
    the problems are of several sources, also some of each, as in "tool_calls/nq".

    An environment with `measure(problem, turns, observations)` names what is counted of
    a conversation in the place of `tool_calls`, and in `by_source` what of each source.
    """
    found = [
        (
            group.problem.source,
            of_conversation(group.problem, rollout.student, dialogue),
        )
        for group in groups
        for rollout in group.rollouts
    ]
    rows = [row for _, row in found]
    if not rows:
        return {}
    turns = sum(row["turns"] for row in rows)
    means = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    means["invalid_rate"] = sum(row["invalid"] for row in rows) / turns
    names = getattr(dialogue.env, "by_source", ("tool_calls",))
    return means | by_source(found, names)


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


def of_conversation(
    problem: Problem, trajectory: Trajectory, dialogue: Dialogue
) -> dict[str, float]:
    """Of one conversation: what the environment measures, and what all have."""
    history = history_of(trajectory)
    turns = history.turns
    if measure := getattr(dialogue.env, "measure", None):
        own = dict(measure(problem, turns, history.observations))
    else:
        steps = [dialogue.step(turn) for turn in turns]
        calls = sum(
            not isinstance(step, Done) and dialogue.is_valid(turn)
            for turn, step in zip(turns, steps, strict=True)
        )
        own = {"tool_calls": float(calls)}
    return own | {
        "turns": float(len(turns)),
        "invalid": float(sum(not dialogue.is_valid(turn) for turn in turns)),
        "observed_tokens": float(sum(trajectory.observed)),
    }


def history_of(trajectory: Trajectory) -> History:
    """The turns of a conversation and what was read after each."""
    pairs = zip(trajectory.turns, trajectory.step_texts, strict=True)
    return History(trajectory.turns, tuple(step[len(turn) :] for turn, step in pairs))

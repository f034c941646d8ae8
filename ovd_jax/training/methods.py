"""The table of methods: what each one collects and which objective it minimizes.

All share task, sampler, packing, optimizer, evaluation and checkpoints. `config.method`
names a row of `METHODS`, or a `Method` of your own in a file.
"""

import dataclasses
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from ovd_jax.conversation.collect import ConversationCollector
from ovd_jax.errors import UserError
from ovd_jax.learning.objective import Objective
from ovd_jax.own_code import load_code, names_code
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.policy import Rules
from ovd_jax.rollout.solutions import (
    accepted_groups,
    given_groups,
    pairs,
    teacher_groups,
)
from ovd_jax.rollout.trajectory import Group
from ovd_jax.sampling.completion import Generate, Stream
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.training.objectives import (
    by_divergence,
    by_imitation,
    by_policy,
    by_preference,
    by_student_divergence,
)


def asked_for_scores(config: ConfigDict) -> bool:
    """True if the teacher's scores accept or reject anything."""
    if not config.threshold:
        return False
    return load_prompt(config.teacher.prompt).level_of(config.threshold) > 0


def asked_for_solutions(config: ConfigDict) -> bool:
    """True if the teacher writes the solutions."""
    return config.distill.solutions == "teacher"


def never(config: ConfigDict) -> bool:
    """False: the method asks the teacher for no text."""
    return False


# How groups are collected, by (config, collector, problems, generate, seed, stream).


def samples(
    config: ConfigDict,
    collector: Collector,
    problems: Sequence[Problem],
    generate: Generate,
    *,
    seed: int,
    stream: Stream | None,
) -> list[Group]:
    """The student's samples, judged and replaced by the rules."""
    return collector.collect(problems, generate, seed=seed, stream=stream)


def solutions(
    config: ConfigDict,
    collector: Collector,
    problems: Sequence[Problem],
    generate: Generate,
    *,
    seed: int,
    stream: Stream | None,
) -> list[Group]:
    """The solutions of the teacher or of the data. Raises UserError for tasks whose
    trajectories are conversations."""
    if isinstance(collector, ConversationCollector):
        raise UserError(
            f"method {config.method!r} has solutions written in a single turn; the "
            "methods ovd, grpo, rejection_ft and on_policy_kd learn from conversations."
        )
    sources = {"teacher": teacher_groups, "data": given_groups}
    if config.distill.solutions not in sources:
        raise UserError(
            f"distill.solutions {config.distill.solutions!r} is not one of "
            f"{', '.join(sources)}."
        )
    return sources[config.distill.solutions](collector, problems, generate, seed=seed)


# Which groups are trained on, with which advantages.
Selected = tuple[Sequence[Group], Sequence[Sequence[Sequence[float]]]]


def everything(buffer: RolloutBuffer) -> Selected:
    """All groups, with the buffer's advantages."""
    return buffer.groups, buffer.advantages


def accepted(buffer: RolloutBuffer) -> Selected:
    """Accepted, correct rollouts, each with advantage 1."""
    return with_equal_advantages(accepted_groups(buffer.groups), (1.0,))


def preferences(buffer: RolloutBuffer) -> Selected:
    """Pairs of a preferred trajectory, with advantage 1, and another, with -1."""
    return with_equal_advantages(pairs(buffer.groups), (1.0, -1.0))


def with_equal_advantages(groups: Sequence[Group], values: Sequence[float]) -> Selected:
    """(groups, advantages): the rollouts of a group take `values` in turn, the same at
    each of their steps."""
    advantages = [
        [
            [values[i % len(values)]] * len(rollout.final.step_ends)
            for i, rollout in enumerate(group.rollouts)
        ]
        for group in groups
    ]
    return groups, advantages


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table. All entries but the last are functions."""

    objective: Callable[..., Objective]
    collect: Callable[..., list[Group]] = samples
    training_groups: Callable = everything  # buffer -> (groups, their advantages)
    rules: Callable[..., dict] = lambda config: {}  # changed fields of the `Rules`
    needs_text_teacher: Callable[..., bool] = lambda config: True
    needs_token_teacher: bool = False


def unjudged(config: ConfigDict) -> dict:
    """Rules without scores: every sample stays as it is."""
    return dict(
        granularity="none", threshold=0, credit="trajectory",
        replacement="trajectory", feedback="none",
    )  # fmt: skip


def judged_if_asked(config: ConfigDict) -> dict:
    """Rules by which scores reject samples and nothing replaces them."""
    judged = dict(demonstration_tries=0, max_replaced_steps=0, feedback="none")
    return judged if asked_for_scores(config) else unjudged(config)


METHODS = {
    # On-policy verbal distillation: scores, rejection, replacement, GRPO.
    "ovd": Method(by_policy),
    # Outcome rewards only (RLVR, R1).
    "grpo": Method(by_policy, rules=unjudged, needs_text_teacher=never),
    # Fine-tuning on solutions of the teacher or of the data.
    "seq_kd": Method(
        by_imitation,
        collect=solutions,
        rules=unjudged,
        needs_text_teacher=asked_for_solutions,
    ),
    # Fine-tuning on the student's accepted, correct samples (RAFT, ReST).
    "rejection_ft": Method(
        by_imitation,
        training_groups=accepted,
        rules=judged_if_asked,
        needs_text_teacher=asked_for_scores,
    ),
    # The teacher's distributions along such solutions.
    "token_kd": Method(
        by_divergence,
        collect=solutions,
        rules=unjudged,
        needs_text_teacher=asked_for_solutions,
        needs_token_teacher=True,
    ),
    # The teacher's distributions along the student's samples (GKD).
    "on_policy_kd": Method(
        by_student_divergence,
        rules=unjudged,
        needs_text_teacher=never,
        needs_token_teacher=True,
    ),
    # The teacher's trajectory preferred to the student's that it replaced (DPO).
    "dpo_pairs": Method(
        by_preference,
        training_groups=preferences,
        rules=lambda config: {"replacement": "trajectory"},
    ),
}


def method_of(config: ConfigDict) -> Method:
    """The row that `config.method` names. Raises UserError if there is none, or if
    `refills` is set for a method without advantages."""
    if names_code(config.method):
        method = load_code(config.method, "method")
        if not isinstance(method, Method):
            raise UserError(f"method is {config.method!r}, which is no Method.")
    elif config.method in METHODS:
        method = METHODS[config.method]
    else:
        raise UserError(f"method {config.method!r} is not one of {', '.join(METHODS)}.")
    if config.refills and method.objective is not by_policy:
        raise UserError(
            f"refills {config.refills} is for groups with advantages; the method "
            f"{config.method} has none: set it to 0."
        )
    return method


def rules(config: ConfigDict) -> Rules:
    """The rules of verbal rejection sampling: the config's, as the method changes them.
    Raises UserError for a threshold above the teacher's scale."""
    names = [field.name for field in dataclasses.fields(Rules)]
    values = {name: config[name] for name in names}
    values |= method_of(config).rules(config)
    if values["granularity"] != "none":
        prompt = load_prompt(config.teacher.prompt)
        values["threshold"] = prompt.level_of(values["threshold"])
    return Rules(**values)

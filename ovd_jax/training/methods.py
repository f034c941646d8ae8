"""The methods that `config.method` names: what each collects, and what it learns by.

All of them share task, sampler, packing, optimizer, evaluation and checkpoints. A
method of your own is one more row of `METHODS`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from ovd_jax.conversation.collect import ConversationCollector
from ovd_jax.errors import UserError
from ovd_jax.learning.distill import (
    distill_objective,
    make_divergence,
    reverse_kl_policy_loss,
)
from ovd_jax.learning.losses import (
    KL_ESTIMATORS,
    SURROGATES,
    dpo_loss,
    imitation_loss,
)
from ovd_jax.learning.update import pack_objective, policy_objective, token_objective
from ovd_jax.models.transformer import Transformer
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
from ovd_jax.teacher.prompts import load_prompt


def asked_for_scores(config) -> bool:
    """Whether the teacher's scores decide about anything."""
    return config.threshold > 0


def asked_for_solutions(config) -> bool:
    """Whether solutions come from the teacher."""
    return config.distill.solutions == "teacher"


# What is collected: groups, of (config, collector, problems, generate, seed, stream).


def samples(config, collector: Collector, problems, generate, *, seed: int, stream):
    """The student's samples, judged and replaced as far as the rules say."""
    return collector.collect(problems, generate, seed=seed, stream=stream)


def solutions(config, collector: Collector, problems, generate, *, seed: int, stream):
    """The teacher's solutions, or those in the data. Raises UserError for tasks whose
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


# What of it is trained on.


def everything(buffer: RolloutBuffer):
    """All groups, with the advantages that the buffer has."""
    return buffer.groups, buffer.advantages


def accepted(buffer: RolloutBuffer):
    """What was accepted and is right; it only counts that it does."""
    return with_equal_advantages(accepted_groups(buffer.groups), (1.0,))


def preferences(buffer: RolloutBuffer):
    """Pairs of trajectories: the one to prefer has the advantage 1, the other -1."""
    return with_equal_advantages(pairs(buffer.groups), (1.0, -1.0))


def with_equal_advantages(groups: Sequence[Group], values: Sequence[float]):
    """The groups, whose rollouts have `values` in turn at each of their steps."""
    advantages = [
        [
            [values[i % len(values)]] * len(rollout.final.step_ends)
            for i, rollout in enumerate(group.rollouts)
        ]
        for group in groups
    ]
    return groups, advantages


# What is learnt by: fields of the Learner, of (config, reference, tokens). `reference`
# gives the starting model, `tokens` is a token-level teacher, if there is one.


def is_served(tokens) -> bool:
    """Whether a token-level teacher is not a model in this process."""
    return tokens is not None and not isinstance(tokens, Transformer)


def likeliest_tokens(config) -> int:
    """How many of a served teacher's likeliest tokens are needed in each place: none
    where the log-probabilities of the sampled tokens are all."""
    policy_gradient = config.distill.divergence == "policy_gradient"
    return 0 if policy_gradient else config.distill.top_k


def by_policy(config, reference: Callable, tokens) -> dict:
    """The policy gradient of the advantages."""
    for name, known in (("surrogate", SURROGATES), ("kl_estimator", KL_ESTIMATORS)):
        if config[name] not in known:
            raise UserError(
                f"{name} {config[name]!r} is not one of {', '.join(known)}."
            )
    fields = {
        name: config[name]
        for name in (
            "surrogate", "clip_low", "clip_high", "kl_coef", "kl_estimator",
            "entropy_coef", "imitation_coef",
        )
    }  # fmt: skip
    fields |= {
        "objective": policy_objective,
        "temperature": config.temperature or 1.0,  # of what was sampled from
        "importance_cap": config.importance_cap or None,
    }
    return fields | ({"reference": reference()} if config.kl_coef else {})


def by_imitation(config, reference: Callable, tokens) -> dict:
    """Cross-entropy."""
    return {
        "objective": token_objective,
        "loss_fn": imitation_loss,
        "temperature": 1.0,
        "needs_behavior": False,
    }


def by_preference(config, reference: Callable, tokens) -> dict:
    """DPO."""
    return {
        "objective": pack_objective,
        "loss_fn": functools.partial(dpo_loss, beta=config.dpo_beta),
        "temperature": 1.0,
        "reference": reference(),
        "needs_behavior": False,
    }


def by_divergence(config, reference: Callable, tokens) -> dict:
    """A divergence from the teacher's distributions."""
    options = config.distill
    known = ("dense", "chunked", "top_k")
    if options.vocabulary not in known:
        raise UserError(
            f"distill.vocabulary {options.vocabulary!r} is not one of "
            f"{', '.join(known)}."
        )
    shown = (options.vocabulary, options.temperature) == ("top_k", 1.0)
    if is_served(tokens) and not shown:
        raise UserError(
            "A served teacher shows its likeliest tokens alone, at temperature 1: set "
            "distill.vocabulary to top_k and distill.temperature to 1."
        )
    return {
        "objective": distill_objective,
        "terms_of": make_divergence(options.divergence, beta=options.beta),
        "vocabulary": options.vocabulary,
        "k": options.top_k,
        "temperature": options.temperature,
        "beside": (None if is_served(tokens) else tokens,),
        "needs_behavior": False,
    }


def by_student_divergence(config, reference: Callable, tokens) -> dict:
    """A divergence, or the reverse KL by policy gradient."""
    if config.distill.divergence != "policy_gradient":
        return by_divergence(config, reference, tokens)
    fields = by_policy(config, reference, tokens)
    fields |= {"loss_fn": reverse_kl_policy_loss}
    if is_served(tokens) and fields["temperature"] != 1.0:
        raise UserError(
            f"temperature is {config.temperature}, but a served teacher's "
            "probabilities are those at temperature 1, and policy_gradient compares "
            "the student's with them: set temperature to 1."
        )
    if config.distill.temperature != 1.0:
        raise UserError(
            f"distill.temperature is {config.distill.temperature}, but policy_gradient "
            "compares both models at the temperature of the samples: set "
            "distill.temperature to 1."
        )
    return fields if is_served(tokens) else fields | {"teacher": tokens}


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table; all entries but `reads` are functions."""

    learns: Callable[..., dict]  # fields of the Learner
    collect: Callable[..., list[Group]] = samples
    select: Callable = everything  # of a buffer: groups to train on, and advantages
    rules: Callable[..., dict] = lambda config: {}  # what it changes in the `Rules`
    asks: Callable[..., bool] = lambda config: True  # for the teacher's text
    reads: bool = False  # the teacher's probabilities of tokens


def unjudged(config) -> dict:
    """No scores: every sample stays as it is."""
    return dict(
        granularity="none", threshold=0, credit="trajectory",
        replacement="trajectory", feedback="none",
    )  # fmt: skip


def judged_if_asked(config) -> dict:
    """Scores, but nothing in the place of what they reject."""
    judged = dict(demonstration_tries=0, max_replaced_steps=0, feedback="none")
    return judged if asked_for_scores(config) else unjudged(config)


METHODS = {
    # On-policy verbal distillation: scores, rejection, replacement, GRPO.
    "ovd": Method(by_policy),
    # Outcome rewards alone (RLVR, R1).
    "grpo": Method(by_policy, rules=unjudged, asks=lambda config: False),
    # Fine-tuning on solutions, of the teacher's or of the data.
    "seq_kd": Method(
        by_imitation, collect=solutions, rules=unjudged, asks=asked_for_solutions
    ),
    # Fine-tuning on the student's right and accepted samples (RAFT, ReST).
    "rejection_ft": Method(
        by_imitation, select=accepted, rules=judged_if_asked, asks=asked_for_scores
    ),
    # The teacher's distributions along such solutions.
    "token_kd": Method(
        by_divergence, collect=solutions, rules=unjudged, asks=asked_for_solutions,
        reads=True,
    ),
    # The teacher's distributions along the student's samples (GKD).
    "on_policy_kd": Method(
        by_student_divergence, rules=unjudged, asks=lambda config: False, reads=True
    ),
    # The teacher's trajectory rather than the student's whose place it took (DPO).
    "dpo_pairs": Method(
        by_preference, select=preferences,
        rules=lambda config: {"replacement": "trajectory"},
    ),
}  # fmt: skip


def method_of(config) -> Method:
    """The row of `config.method`. Raises UserError where there is none, and where a
    knob of the policy gradient is set that it would not use."""
    if names_code(config.method):
        method = load_code(config.method, "method")
        if not isinstance(method, Method):
            raise UserError(f"method is {config.method!r}, which is no Method.")
    elif config.method in METHODS:
        method = METHODS[config.method]
    else:
        raise UserError(f"method {config.method!r} is not one of {', '.join(METHODS)}.")
    if config.refills and method.learns is not by_policy:
        raise UserError(
            f"refills {config.refills} is for groups with advantages; the method "
            f"{config.method} has none: set it to 0."
        )
    return method


def rules(config) -> Rules:
    """The part of the config that is verbal rejection sampling's, as the method has it.
    Raises UserError for a threshold above the teacher's scale."""
    names = [field.name for field in dataclasses.fields(Rules)]
    values = {name: config[name] for name in names}
    values |= method_of(config).rules(config)
    if values["granularity"] != "none":
        prompt = load_prompt(config.teacher.prompt)
        values["threshold"] = prompt.level_of(values["threshold"])
    return Rules(**values)

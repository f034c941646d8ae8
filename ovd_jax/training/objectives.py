"""The objectives of the methods, made of the config.

Each function takes (config, reference, token_teacher). `reference()` returns the
starting model; `token_teacher` is None if the method needs none.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.errors import UserError
from ovd_jax.learning.distill import distill_objective, reverse_kl_policy_loss
from ovd_jax.learning.divergences import make_divergence
from ovd_jax.learning.losses import (
    KL_ESTIMATORS,
    SURROGATES,
    dpo_loss,
    imitation_loss,
    policy_loss,
)
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import pack_objective, policy_objective, token_objective
from ovd_jax.models.transformer import Transformer


def is_served(token_teacher: object) -> bool:
    """True if a token-level teacher is behind a server, not in this process."""
    return token_teacher is not None and not isinstance(token_teacher, Transformer)


def likeliest_tokens(config: ConfigDict) -> int:
    """How many of a served teacher's likeliest tokens the divergence needs at each
    position; the policy gradient needs only the log-probability of the sampled one."""
    policy_gradient = config.distill.divergence == "policy_gradient"
    return 0 if policy_gradient else config.distill.top_k


def by_policy(
    config: ConfigDict, reference: Callable, token_teacher: Any = None
) -> Objective:
    """The policy gradient of the advantages."""
    return policy_gradient(config, reference, policy_loss)


def policy_gradient(
    config: ConfigDict, reference: Callable, loss_fn: Callable
) -> Objective:
    """`policy_objective` with the config's surrogate, clipping and regularizers."""
    for name, known in (("surrogate", SURROGATES), ("kl_estimator", KL_ESTIMATORS)):
        if config[name] not in known:
            raise UserError(
                f"{name} {config[name]!r} is not one of {', '.join(known)}."
            )
    names = (
        "surrogate", "clip_low", "clip_high", "kl_coef", "kl_estimator",
        "entropy_coef", "imitation_coef",
    )  # fmt: skip
    return Objective(
        functools.partial(
            policy_objective,
            loss_fn=loss_fn,
            importance_cap=config.importance_cap or None,
            **{name: config[name] for name in names},
        ),
        temperature=config.temperature or 1.0,  # that of sampling
        reference=reference() if config.kl_coef else None,
    )


def by_imitation(
    config: ConfigDict, reference: Callable, token_teacher: Any = None
) -> Objective:
    """Cross-entropy."""
    return Objective(
        functools.partial(token_objective, loss_fn=imitation_loss),
        temperature=1.0,
        needs_behavior=False,
    )


def by_preference(
    config: ConfigDict, reference: Callable, token_teacher: Any = None
) -> Objective:
    """DPO."""
    return Objective(
        functools.partial(
            pack_objective, loss_fn=functools.partial(dpo_loss, beta=config.dpo_beta)
        ),
        temperature=1.0,
        needs_behavior=False,
        reference=reference(),
        pairs=True,
    )


def by_divergence(
    config: ConfigDict, reference: Callable, token_teacher: Any
) -> Objective:
    """A divergence from the teacher's distributions."""
    options = config.distill
    known = ("dense", "chunked", "top_k")
    if options.vocabulary not in known:
        raise UserError(
            f"distill.vocabulary {options.vocabulary!r} is not one of "
            f"{', '.join(known)}."
        )
    served = is_served(token_teacher)
    if served and (options.vocabulary, options.temperature) != ("top_k", 1.0):
        raise UserError(
            "A served teacher shows its likeliest tokens alone, at temperature 1: set "
            "distill.vocabulary to top_k and distill.temperature to 1."
        )
    return Objective(
        functools.partial(
            distill_objective,
            terms_of=make_divergence(options.divergence, beta=options.beta),
            vocabulary=options.vocabulary,
            k=options.top_k,
        ),
        temperature=options.temperature,
        needs_behavior=False,
        extra_inputs=(None if served else token_teacher,),
    )


def by_student_divergence(
    config: ConfigDict, reference: Callable, token_teacher: Any
) -> Objective:
    """A divergence, or the reverse KL by policy gradient."""
    if config.distill.divergence != "policy_gradient":
        return by_divergence(config, reference, token_teacher)
    objective = policy_gradient(config, reference, reverse_kl_policy_loss)
    served = is_served(token_teacher)
    if served and objective.temperature != 1.0:
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
    return dataclasses.replace(
        objective, token_teacher=None if served else token_teacher
    )

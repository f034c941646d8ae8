"""Divergences of two models, from the log-probabilities of every token."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ovd_jax.errors import UserError


def forward_kl(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """The terms of KL(teacher || student), from log-probabilities of each token."""
    return jnp.exp(teacher) * (teacher - student)


def reverse_kl(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """The terms of KL(student || teacher)."""
    return jnp.exp(student) * (student - teacher)


def jsd(student: jax.Array, teacher: jax.Array, *, beta: float) -> jax.Array:
    """The terms of the generalized Jensen-Shannon divergence (GKD, arXiv:2306.13649).

    `beta` KL(teacher || mix) + (1 - `beta`) KL(student || mix), where mix is `beta`
    teacher + (1 - `beta`) student.
    """
    mix = jnp.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * forward_kl(mix, teacher) + (1 - beta) * forward_kl(mix, student)


def make_divergence(name: str, *, beta: float) -> Callable:
    """The terms (student, teacher) -> [..., V] of the divergence called `name`."""
    if name == "jsd":
        if not 0 < beta < 1:
            raise UserError(
                f"distill.beta {beta} is not between 0 and 1; the ends are the "
                "divergences forward_kl and reverse_kl."
            )
        return functools.partial(jsd, beta=beta)
    known = {"forward_kl": forward_kl, "reverse_kl": reverse_kl}
    if name not in known:
        raise UserError(
            f"distill.divergence {name!r} is not one of {', '.join(known)}, jsd."
        )
    return known[name]

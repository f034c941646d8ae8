"""Rollouts of given lengths, for timing our updates."""

import functools

import jax
import numpy as np
import optax

from ovd_jax.learning.distill import distill_objective
from ovd_jax.learning.divergences import reverse_kl
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import Stepper, TrainState, policy_objective
from ovd_jax.models.transformer import Transformer, TransformerConfig
from ovd_jax.rollout.pack import pack
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.tasks.base import Problem

PROBLEM = Problem(id="", question="", answer="", source="benchmark")
TX = optax.apply_if_finite(optax.adamw(1e-6), 2**30)


def batch(
    prompt: int,
    lengths: list[list[int]],
    *,
    vocab_size: int,
    length_multiple: int,
    microbatch_tokens: int,
):
    """(batch, shape): a group of random completions for each list of their lengths,
    all behind prompts of `prompt` random tokens."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocab_size, count).tolist())

    def rollout(length: int) -> Rollout:
        sampled = Trajectory(
            tokens=tokens(length), logprobs=(-10.8,) * length,
            from_teacher=(False,) * length, text="", step_texts=("",),
            step_ends=(length,), stopped=True,
        )  # fmt: skip
        return Rollout(sampled, Verdict((), None, 9.0), True, sampled, None, 1.0, 1.0)

    groups = [
        Group(PROBLEM, tokens(prompt), tuple(map(rollout, group))) for group in lengths
    ]
    return pack(
        groups,
        [[[float(rng.normal())] for _ in group] for group in lengths],
        length_multiple=length_multiple,
        max_tokens=microbatch_tokens,
    )


def learner(*, remat: str, chunk: int) -> Learner:
    """GRPO with AdamW, one step a batch, without a reference."""
    policy = functools.partial(
        policy_objective, clip_low=0.2, clip_high=0.2, kl_coef=0.0
    )
    return Learner(
        Objective(policy, temperature=1.0), tx=TX, minibatches=1, epochs=1,
        max_tokens=1024, aggregation="grpo", chunk=chunk, remat=remat,
    )  # fmt: skip


def stepper(method: str, *, remat: str, chunk: int, k: int) -> Stepper:
    """AdamW on OVD's loss with its KL term (`ovd`), or on the reverse KL to a teacher
    over the vocabulary: `dense`, `chunked` or `top_k`."""
    common = {"temperature": 1.0, "chunk": chunk, "remat": remat}
    if method == "ovd":
        objective = functools.partial(
            policy_objective, clip_low=0.2, clip_high=0.2, kl_coef=0.001, **common
        )
    else:
        objective = functools.partial(
            distill_objective, terms_of=reverse_kl, vocabulary=method, k=k, **common
        )
    return Stepper(objective, TX)


def create(config: TransformerConfig) -> TrainState:
    """Random weights and their optimizer state."""
    make = jax.jit(lambda key: TrainState.create(Transformer(config, key), TX))
    return make(jax.random.key(0))


def temporaries_mib(stepper: Stepper, state: TrainState, part) -> float:
    """What XLA sets aside for the gradient of one part of a batch."""
    grads = jax.eval_shape(stepper.zeros, state.model)
    compiled = stepper.add.lower(state.model, grads, part).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20

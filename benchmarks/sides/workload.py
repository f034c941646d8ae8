"""Rollouts of given lengths, for timing our updates."""

import jax
import numpy as np
import optax

from ovd_jax.learning.learner import Learner
from ovd_jax.learning.update import TrainState
from ovd_jax.models.transformer import Transformer, TransformerConfig
from ovd_jax.rollout.pack import pack
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.tasks.base import Problem

PROBLEM = Problem(id="", question="", answer="", source="benchmark")


def batch(
    prompt: int,
    lengths: list[list[int]],
    *,
    vocab_size: int,
    length_multiple: int,
    tokens_at_once: int,
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
        max_tokens=tokens_at_once,
    )


def learner(*, remat: str, chunk: int) -> Learner:
    """GRPO with AdamW, one step a batch, without a reference."""
    return Learner(
        tx=optax.apply_if_finite(optax.adamw(1e-6), 2**30),
        reference=None, minibatches=1, epochs=1, max_tokens=1024, aggregation="grpo",
        temperature=1.0, chunk=chunk, remat=remat, clip_low=0.2, clip_high=0.2,
        kl_coef=0.0,
    )  # fmt: skip


def create(config: TransformerConfig, learner: Learner) -> TrainState:
    """Random weights and their optimizer state."""
    make = jax.jit(lambda key: TrainState.create(Transformer(config, key), learner.tx))
    return make(jax.random.key(0))


def temporaries_mib(learner: Learner, state: TrainState, part) -> float:
    """What XLA sets aside for the gradient of one part of a batch."""
    grads = jax.eval_shape(learner.stepper.zeros, state.model)
    compiled = learner.stepper.add.lower(state.model, grads, part).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20

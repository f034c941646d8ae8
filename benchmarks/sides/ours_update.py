"""One GRPO optimizer step of ours: SmolLM2-135M's shape, random weights, AdamW."""

import jax
import numpy as np
import optax
import timing

from ovd_jax.learning.learner import Learner, cut
from ovd_jax.learning.update import TrainState
from ovd_jax.models.known import KNOWN
from ovd_jax.models.transformer import Transformer
from ovd_jax.rollout.pack import pack
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.tasks.base import Problem

CONFIG = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
PROBLEM = Problem(id="", question="", answer="", source="benchmark")
work = timing.work()
rng = np.random.default_rng(0)


def tokens(count: int) -> tuple[int, ...]:
    """Random ones."""
    return tuple(rng.integers(1, CONFIG.vocab_size, count).tolist())


def rollout(length: int) -> Rollout:
    """One of `length` tokens, accepted as sampled."""
    sampled = Trajectory(
        tokens=tokens(length), logprobs=(-10.8,) * length,
        from_teacher=(False,) * length, text="", step_texts=("",),
        step_ends=(length,), stopped=True,
    )  # fmt: skip
    verdict = Verdict((), None, 9.0)
    return Rollout(sampled, verdict, True, sampled, None, 1.0, 1.0)


groups = [
    Group(PROBLEM, tokens(work["prompt"]), tuple(map(rollout, lengths)))
    for lengths in work["lengths"]
]
advantages = [[[float(rng.normal())] for _ in group.rollouts] for group in groups]
batch, shape = pack(
    groups, advantages,
    length_multiple=work["length_multiple"], max_tokens=work["tokens_at_once"],
)  # fmt: skip
learner = Learner(
    tx=optax.apply_if_finite(optax.adamw(1e-6), 2**30),
    reference=None, minibatches=1, epochs=1, max_tokens=work["max_completion"],
    aggregation="grpo", temperature=1.0, chunk=work["chunk"], remat=work["remat"],
    clip_low=0.2, clip_high=0.2, kl_coef=0.0,
)  # fmt: skip
state = jax.jit(lambda key: TrainState.create(Transformer(CONFIG, key), learner.tx))(
    jax.random.key(0)
)


def step(_) -> None:
    """An update; its state goes on to the next."""
    global state
    state, _ = learner.learn(state, batch, packs=shape.at_once, seed=0)
    jax.block_until_ready(state)


seconds = timing.seconds(step, work["repeats"])
part = next(cut(batch, shape.at_once))
stepper = learner.stepper
grads = jax.eval_shape(stepper.zeros, state.model)
memory = stepper.add.lower(state.model, grads, part).compile().memory_analysis()
timing.report(
    seconds=seconds,
    temporaries_mib=memory.temp_size_in_bytes / 2**20,
    slots=shape.slots * len(batch.tokens_KC),
)

"""One GRPO optimizer step of ours: SmolLM2-135M's shape, random weights, AdamW."""

import jax
import timing
import workload

from ovd_jax.learning.learner import cut
from ovd_jax.models.known import KNOWN

CONFIG = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
work = timing.work()
batch, shape = workload.batch(
    work["prompt"],
    work["lengths"],
    vocab_size=CONFIG.vocab_size,
    length_multiple=work["length_multiple"],
    microbatch_tokens=work["microbatch_tokens"],
)
learner = workload.learner(remat=work["remat"], chunk=work["chunk"])
state = workload.create(CONFIG)


def step(_) -> None:
    """An update; its state goes on to the next."""
    global state
    state, _ = learner.learn(state, batch, microbatch=shape.microbatch, seed=0)
    jax.block_until_ready(state)


seconds = timing.seconds(step, work["repeats"])
timing.report(
    seconds=seconds,
    temporaries_mib=workload.temporaries_mib(
        learner.stepper, state, next(cut(batch, shape.microbatch))
    ),
    slots=shape.slots * len(batch.tokens_BY),
)

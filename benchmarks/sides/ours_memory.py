"""One optimizer step of OVD or of on-policy distillation: SmolLM2-135M's shape, random
weights, AdamW, float32.

OVD's takes its frozen reference along, distillation its teacher, whose forward pass is
part of the step.
"""

import jax
import numpy as np
import timing
import workload

from ovd_jax.learning.learner import cut
from ovd_jax.learning.update import batch_logprobs
from ovd_jax.models.known import KNOWN
from ovd_jax.models.transformer import Transformer

CONFIG = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
work = timing.work()
is_ovd = work["method"] == "ovd"
batch, shape = workload.batch(
    work["prompt"], work["lengths"], vocab_size=CONFIG.vocab_size,
    length_multiple=64, microbatch_tokens=work["microbatch_tokens"],
)  # fmt: skip
stepper = workload.stepper(
    work["method"], remat=work["remat"], chunk=work["chunk"], k=work["k"]
)
state = workload.create(CONFIG)
make = jax.jit(Transformer, static_argnums=0)
other = make(CONFIG if is_ovd else KNOWN[work["teacher"]], jax.random.key(1))
(part,) = cut(batch, shape.microbatch)


def step(_) -> None:
    """An update; its state goes on to the next."""
    global state
    if is_ovd:
        found = batch_logprobs(other, part, temperature=1.0, chunk=work["chunk"])
        state, _ = stepper(state, [part.replace(ref_logprobs_BY=np.asarray(found))])
    else:
        state, _ = stepper(state, [(part, other)])
    jax.block_until_ready(state)


seconds = timing.seconds(step, work["repeats"])
if is_ovd:
    part = part.replace(ref_logprobs_BY=part.advantages_BY)
timing.report(
    seconds=seconds,
    temporaries_mib=workload.temporaries_mib(
        stepper, state, part if is_ovd else (part, other)
    ),
)

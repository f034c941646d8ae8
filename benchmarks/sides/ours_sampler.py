"""Completions by our sampler: SmolLM2-135M's shape, random weights, float32."""

import jax
import numpy as np
import timing

from ovd_jax.models.known import KNOWN
from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.sampler import Sampler

work = timing.work()
config = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
model = jax.jit(lambda key: Transformer(config, key))(jax.random.key(0))
rng = np.random.default_rng(0)
prompts = rng.integers(3, config.vocab_size, (work["prompts"], work["prompt"])).tolist()
sampler = Sampler(
    tokenizer=None,
    stop_ids=tuple(work["stop_ids"]),
    max_new_tokens=work["new_tokens"],
    temperature=work["temperature"],
    top_p=work["top_p"],
)


def sample(seed: int) -> int:
    """Tokens sampled."""
    groups = sampler(model, prompts, seed=seed, samples=work["samples"])
    return sum(len(row.tokens) for group in groups for row in group)


timing.report(**timing.rate(sample, work["repeats"]))

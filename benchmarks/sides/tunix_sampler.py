"""Completions by Tunix's sampler: its Llama, random weights, float32."""

import numpy as np
import timing
from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.llama3.model import Llama3, ModelConfig

work = timing.work()
config = ModelConfig(
    num_layers=30, vocab_size=49_152, embed_dim=576, hidden_dim=1536, num_heads=9,
    head_dim=64, num_kv_heads=3, rope_theta=100_000, norm_eps=1e-5, weight_tying=True,
)  # fmt: skip


class Numbers:
    """A tokenizer whose text is token ids, so that both sides read the same ones."""

    def encode(self, text: str, **_) -> list[int]:
        """Ids from text."""
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        """Text from ids."""
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        """What a prompt begins with."""
        return 1

    def eos_id(self) -> int:
        """Not in use: the work says what stops."""
        return 2

    def pad_id(self) -> int:
        """What prompts are padded with."""
        return 0


sampler = Sampler(
    Llama3(config, rngs=nnx.Rngs(0)),
    Numbers(),
    CacheConfig(
        cache_size=work["prompt"] + work["new_tokens"],
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    ),
)
rng = np.random.default_rng(0)
prompts = rng.integers(3, config.vocab_size, (work["prompts"], work["prompt"]))
prompts[:, 0] = 1  # it would put its start token before them
texts = [Numbers().decode(row) for row in prompts for _ in range(work["samples"])]


def sample(seed: int) -> int:
    """Tokens sampled."""
    output = sampler(
        texts,
        max_generation_steps=work["new_tokens"],
        max_prompt_length=work["prompt"],
        eos_tokens=work["stop_ids"] or [-1],
        temperature=work["temperature"],
        top_p=work["top_p"] if work["temperature"] else None,
        seed=seed,
        return_logprobs=True,
    )
    ended = [len(row) < work["new_tokens"] for row in output.tokens]
    return sum(map(len, output.tokens)) + sum(ended)  # the stop token is left out


timing.report(**timing.rate(sample, work["repeats"]))

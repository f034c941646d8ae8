"""Prompts and short ways to sample from the small model."""

import dataclasses

import jax

from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.sampler import Sampler

PROMPTS = ([3], [7, 1, 4], [5, 9, 2, 6, 8, 0, 11, 12, 13, 14])


NEW_TOKENS = 20  # more than the sampler decodes between two looks for stop strings


forward = jax.jit(Transformer.__call__)


class Letters:
    """Token 0 says "aA", 1 says "bB": text can be cut inside a token."""

    def decode(self, tokens, **options) -> str:
        return "".join(f"{chr(97 + t)}{chr(65 + t)}" for t in tokens)


def sample(
    model, prompts=PROMPTS, *, seed=0, samples=2, limits=None, draws=None, **changes
):
    plain = Sampler(
        tokenizer=Letters(), stop_ids=(), max_new_tokens=NEW_TOKENS, prompt_multiple=8
    )
    generate = dataclasses.replace(plain, **changes)
    return generate(
        model, prompts, seed=seed, samples=samples, limits=limits, draws=draws
    )


def tokens_of(groups):
    return [completion.tokens for group in groups for completion in group]

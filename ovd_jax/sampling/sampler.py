"""Completions from a model: token ids in, token ids out."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.decode import decode, prefill
from ovd_jax.sampling.shapes import bucket, left_pad

_STOP_CHECK_EVERY = 16  # tokens decoded between two looks for stop strings
_NEVER = np.iinfo(np.int32).max  # more tokens than any completion has


@dataclasses.dataclass(frozen=True)
class Completion:
    """What was sampled after one prompt, the stop token included."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]  # under softmax(logits / temperature)
    stopped: bool  # by a stop token or string; False: cut at the limit


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How to sample; calling it with a model and prompts samples.

    Few shapes are compiled: prompts are padded to a multiple of `prompt_multiple`, the
    number of prompts to a power of two, and to `min_prompts`.
    """

    tokenizer: object
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    stop_strings: tuple[str, ...] = ()
    prompt_multiple: int = 16
    min_prompts: int = 1  # fewer are padded to as many

    def __call__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """`samples` completions of each prompt; a prompt is read once for all of them.

        Row i (prompt-major) is drawn from fold_in(key(seed), i). `limits` holds a
        budget of new tokens for each prompt, `max_new_tokens` at most. Raises
        ValueError for an empty prompt.
        """
        if not prompts:
            return []
        if not all(map(len, prompts)):
            raise ValueError("A prompt is empty; give it at least a start token.")
        count = len(prompts) * samples
        padded = bucket(max(len(prompts), self.min_prompts))
        tokens_PT, valid_PT = left_pad(prompts, padded, self.prompt_multiple)
        budget = [self.max_new_tokens] * len(prompts) if limits is None else limits
        limits_B = np.zeros(padded * samples, np.int32)
        limits_B[:count] = np.minimum(np.repeat(budget, samples), self.max_new_tokens)
        rows = jnp.arange(padded * samples)
        keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows)
        state = prefill(
            model, tokens_PT, valid_PT, limits_B > 0,
            samples=samples, new_tokens=self.max_new_tokens,
        )  # fmt: skip
        completions = self._run(model, state, keys_B, limits_B)[:count]
        return [completions[i : i + samples] for i in range(0, count, samples)]

    def _run(self, model, state, keys_B, limits_B) -> list[Completion]:
        """Decodes to the end, stopping now and then to look for stop strings."""
        stop_ids = np.asarray(self.stop_ids or (-1,), np.int32)
        stride = _STOP_CHECK_EVERY if self.stop_strings else self.max_new_tokens
        found = np.full(len(limits_B), _NEVER)
        until = 0
        while until < self.max_new_tokens and not bool(state.done_B.all()):
            until = min(until + stride, self.max_new_tokens)
            state = decode(
                model, state, keys_B, limits_B, stop_ids, until,
                temperature=self.temperature, top_k=self.top_k, top_p=self.top_p,
            )  # fmt: skip
            if self.stop_strings:
                found = self._stop_string_ends(np.asarray(state.tokens_BO), until)
                state = state.replace(done_B=state.done_B | (found <= until))
        tokens_BO, logprobs_BO = jax.device_get((state.tokens_BO, state.logprobs_BO))
        return [
            completion(tokens, logprobs, end, limit, self.stop_ids)
            for tokens, logprobs, end, limit in zip(
                tokens_BO, logprobs_BO, found.tolist(), limits_B.tolist(), strict=True
            )
        ]

    def _stop_string_ends(self, tokens_BO, until: int) -> np.ndarray:
        """For each row how many tokens complete the first stop string, or `_NEVER`."""
        ends = np.full(len(tokens_BO), _NEVER)
        for row, tokens in enumerate(tokens_BO[:, :until]):
            if self._has_stop(tokens):
                low, high = 0, until  # the text of `low` tokens has none, of `high` one
                while high - low > 1:
                    middle = (low + high) // 2
                    has = self._has_stop(tokens[:middle])
                    low, high = (low, middle) if has else (middle, high)
                ends[row] = high
        return ends

    def _has_stop(self, tokens) -> bool:
        text = self.tokenizer.decode(tokens)
        return any(stop in text for stop in self.stop_strings)


def completion(tokens, logprobs, found: int, limit: int, stop_ids) -> Completion:
    """One row's completion: up to its stop token, its limit, or the `found` tokens
    that complete a stop string."""
    length = min(found, limit)
    hits = np.flatnonzero(np.isin(tokens[:length], stop_ids))
    if hits.size:
        length = int(hits[0]) + 1
    return Completion(
        tokens=tuple(tokens[:length].tolist()),
        logprobs=tuple(logprobs[:length].tolist()),
        stopped=bool(hits.size) or found <= limit,
    )

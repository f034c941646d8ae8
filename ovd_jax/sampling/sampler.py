"""Completions from a model: token ids in, token ids out."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.models.sharding import row_shards
from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.batch import Row, Run
from ovd_jax.sampling.completion import Completion, Environment
from ovd_jax.sampling.decode import prefill, row_rngs
from ovd_jax.sampling.decoder import unstack
from ovd_jax.shapes import bucket, fine_bucket, right_pad, round_up
from ovd_jax.text import Tokenizer, decode

_NEVER = np.iinfo(np.int32).max  # more tokens than any completion has


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Samples completions from a model.

    Few shapes are compiled: prompts are padded to 2^n or 3 x 2^n tokens and a multiple
    of `prompt_multiple`, their number to a power of two. The number of computed rows
    halves as rows finish, down to `min_rows`; the room for tokens doubles. Under a mesh
    prompts are split evenly over `data` and `fsdp`.
    """

    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]
    max_new_tokens: int  # of a row; with an environment, of a turn
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    stop_strings: tuple[str, ...] = ()
    prompt_multiple: int = 16
    min_rows: int = 8

    def __call__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | None = None,
        environment: Environment | None = None,
    ) -> list[list[Completion]]:
        """Returns `samples` completions of each prompt, which is prefilled once.

        Row i (prompt-major) is drawn from fold_in(key(seed), i), or from its number in
        `draws` [prompts][samples] in place of i. Other rows do not change it. `limits`
        bounds the new tokens of each prompt, `max_new_tokens` at most. With an
        `environment` rows are conversations: it decides which ones continue after a
        turn and what they read; `limits` then bounds turns and observations together,
        and without `limits` nothing does. Raises UserError for an empty prompt, and for
        more tokens than the model has positions.
        """
        stream = self.stream(
            model, prompts, seed=seed, samples=samples, limits=limits, draws=draws,
            environment=environment,
        )  # fmt: skip
        rows = [
            completion for _, completion in sorted(stream, key=lambda pair: pair[0])
        ]
        return [rows[i : i + samples] for i in range(0, len(rows), samples)]

    def stream(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | None = None,
        environment: Environment | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """Like a call, but yields (row, completion) as rows finish."""
        if not prompts:
            return
        budgets = self.budgets(model, prompts, limits, endless=environment is not None)
        rows = [
            Row(len(prompt), budget)
            for prompt, budget in zip(prompts, budgets, strict=True)
            for _ in range(samples)
        ]
        height = bucket(max(len(prompts), -(-self.min_rows // samples)))
        grid = (round_up(height, row_shards()), samples)
        limits_PG = np.zeros(grid, np.int32)
        limits_PG[: len(prompts)] = np.minimum(budgets, self.max_new_tokens)[:, None]
        numbers_PG = np.arange(limits_PG.size).reshape(grid)
        draws_PG = numbers_PG
        if draws is not None:
            draws_PG = np.zeros_like(numbers_PG)
            draws_PG[: len(prompts)] = draws
        run = Run(
            self, rows, numbers_PG,
            seed=seed, draws=draws_PG.ravel(), environment=environment,
        )  # fmt: skip
        width = self.width(max(map(len, prompts)))
        run.state = prefill(
            model, *right_pad(prompts, grid[0], width), limits_PG,
            row_rngs(seed, draws_PG), run.stop_ids, slots=run.slots, **run.sampling,
        )  # fmt: skip
        yield from run.completions(unstack(model))

    def budgets(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int] | None,
        *,
        endless: bool,
    ) -> list[int]:
        """Tokens that may follow each prompt. Raises UserError for an empty prompt, and
        for more tokens than the model has positions."""
        if not all(map(len, prompts)):
            raise UserError("A prompt is empty; give it at least a start token.")
        most = _NEVER if endless else self.max_new_tokens
        limits = [most] * len(prompts) if limits is None else limits
        limits = [min(limit, most) for limit in limits]
        lengths = [
            len(prompt) + limit
            for prompt, limit in zip(prompts, limits, strict=True)
            if limit != _NEVER
        ]
        model.config.check_length(max(lengths, default=0), "A prompt and its answer")
        model.config.check_tokens(map(max, prompts), "A prompt")
        return limits

    def width(self, tokens: int) -> int:
        """The padded width of a prompt with so many tokens."""
        return round_up(fine_bucket(tokens), self.prompt_multiple)

    def stop_string_end(self, tokens: Sequence[int]) -> int | None:
        """The number of tokens that completes the first stop string; None without
        one."""
        if not self.stop_strings or not self._has_stop(tokens):
            return None
        low, high = 0, len(tokens)  # the text of `low` tokens has none, of `high` one
        while high - low > 1:
            middle = (low + high) // 2
            has = self._has_stop(tokens[:middle])
            low, high = (low, middle) if has else (middle, high)
        return high

    def _has_stop(self, tokens) -> bool:
        text = decode(self.tokenizer, tokens, special=True)
        return any(stop in text for stop in self.stop_strings)

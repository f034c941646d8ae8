"""Completions from a model: token ids in, token ids out."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ovd_jax.learning.sharding import fetch, row_shards
from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.decode import decode, prefill, regroup, row_rngs
from ovd_jax.sampling.decoder import unstack
from ovd_jax.sampling.shapes import bucket, right_pad, round_up

_LOOK_EVERY = 16  # tokens decoded between two looks at what has finished
_MIN_SLOTS = 64  # room for new tokens to begin with; it doubles when it is used up
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
    number of prompts to a power of two, and to `min_prompts`. The rows that are
    computed halve, down to `min_rows`, as others finish; room for tokens doubles.
    Under a mesh prompts are split over `data` and `fsdp`, as many to each device.
    """

    tokenizer: object
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    stop_strings: tuple[str, ...] = ()
    prompt_multiple: int = 16
    min_prompts: int = 1
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
    ) -> list[list[Completion]]:
        """`samples` completions of each prompt; a prompt is read once for all of them.

        Row i (prompt-major) is drawn from fold_in(key(seed), i), or from the number in
        its place in `draws`, [prompts][samples], so that it does not depend on what is
        sampled beside it. `limits` holds a budget of new tokens for each prompt,
        `max_new_tokens` at most. Raises ValueError for an empty prompt.
        """
        stream = self.stream(
            model, prompts, seed=seed, samples=samples, limits=limits, draws=draws
        )
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
    ) -> Iterator[tuple[int, Completion]]:
        """As a call, but (row, completion) as they finish, while others are sampled."""
        if not prompts:
            return
        if not all(map(len, prompts)):
            raise ValueError("A prompt is empty; give it at least a start token.")
        sampling = {f: getattr(self, f) for f in ("temperature", "top_k", "top_p")}
        stop_ids = np.asarray(self.stop_ids or (-1,), np.int32)
        budget = [self.max_new_tokens] * len(prompts) if limits is None else limits
        height = bucket(max(len(prompts), self.min_prompts))
        grid = (round_up(height, row_shards()), samples)
        limits_PG = np.zeros(grid, np.int32)
        limits_PG[: len(prompts)] = np.minimum(budget, self.max_new_tokens)[:, None]
        rows_PG = np.arange(limits_PG.size).reshape(grid)
        draws_PG = rows_PG
        if draws is not None:
            draws_PG = np.zeros_like(rows_PG)
            draws_PG[: len(prompts)] = draws
        open_PG = np.broadcast_to(np.arange(grid[0]) < len(prompts), grid[::-1]).T
        slots, count = self._slots(1), 1
        state = prefill(
            model, *right_pad(prompts, grid[0], self.prompt_multiple), limits_PG,
            row_rngs(seed, draws_PG), stop_ids, slots=slots, **sampling,
        )  # fmt: skip
        decoder = unstack(model)
        while True:
            finished, open_PG = self._look(state, open_PG, rows_PG, limits_PG, count)
            if open_PG.any():
                count = min(count + _LOOK_EVERY, self.max_new_tokens)
                cells_PG, alive_PG = compact(open_PG, self.min_rows, row_shards())
                if cells_PG.size < open_PG.size or self._slots(count) > slots:
                    slots = self._slots(count)
                    state = regroup(state, cells_PG, slots=slots)
                    rows_PG, limits_PG = (
                        x.ravel()[cells_PG] for x in (rows_PG, limits_PG)
                    )
                    open_PG = alive_PG
                state = decode(
                    decoder,
                    state.replace(done_PG=~open_PG),
                    stop_ids,
                    count,
                    **sampling,
                )
            yield from finished  # decoding goes on meanwhile
            if not open_PG.any():
                return

    def _slots(self, tokens: int) -> int:
        """Room for `tokens` new tokens."""
        return min(bucket(max(tokens, _MIN_SLOTS)), self.max_new_tokens)

    def _look(self, state, open_PG, rows_PG, limits_PG, count: int):
        """What has finished, as (row, completion), and the grid of what has not."""
        done_PG, tokens_PGO, logprobs_PGO = fetch(
            (state.done_PG, state.tokens_PGO, state.logprobs_PGO)
        )
        finished, still_open_PG = [], np.zeros_like(open_PG)
        for cell in map(tuple, np.argwhere(open_PG)):
            tokens = tokens_PGO[cell][:count]
            found = self._stop_string_end(tokens)
            if not done_PG[cell] and found == _NEVER:
                still_open_PG[cell] = True
                continue
            logprobs, limit = logprobs_PGO[cell], int(limits_PG[cell])
            ended = completion(tokens, logprobs, found, limit, self.stop_ids)
            finished.append((int(rows_PG[cell]), ended))
        return finished, still_open_PG

    def _stop_string_end(self, tokens) -> int:
        """How many tokens complete the first stop string; `_NEVER` if none does."""
        if not self.stop_strings or not self._has_stop(tokens):
            return _NEVER
        low, high = 0, len(tokens)  # the text of `low` tokens has none, of `high` one
        while high - low > 1:
            middle = (low + high) // 2
            has = self._has_stop(tokens[:middle])
            low, high = (low, middle) if has else (middle, high)
        return high

    def _has_stop(self, tokens) -> bool:
        text = self.tokenizer.decode(tokens)
        return any(stop in text for stop in self.stop_strings)


def compact(
    open_PG: np.ndarray, min_rows: int, shards: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(which cells stay, which of them are open): the least grid for the open rows, of
    a multiple of `shards` lines.

    The rows of a line share a prompt: either each line keeps its own, or, where that
    leaves twice the rows, each row is given a line. The grid stays as it is where none
    of half its size, or of `min_rows`, would do.
    """
    cells_PG = np.arange(open_PG.size).reshape(open_PG.shape)
    lines = [cells[is_open] for cells, is_open in zip(cells_PG, open_PG, strict=True)]
    lines = [line for line in lines if line.size]
    together = (bucket(len(lines)), bucket(max(map(len, lines))))
    apart = (bucket(sum(map(len, lines))), 1)
    if 2 * math.prod(apart) <= math.prod(together):
        lines = [line for cells in lines for line in cells[:, None]]
        together = apart
    height, width = max(together[0], -(-min_rows // together[1])), together[1]
    height = round_up(height, shards)
    if 2 * height * width > open_PG.size:
        return cells_PG, open_PG
    stay_PG = np.full((height, width), lines[0][0])
    alive_PG = np.zeros((height, width), bool)
    for index, line in enumerate(lines):
        stay_PG[index] = line[0]
        stay_PG[index, : len(line)] = line
        alive_PG[index, : len(line)] = True
    return stay_PG, alive_PG


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

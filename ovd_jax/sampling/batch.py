"""Decodes a batch of rows together and decides which of them continue.

A row is a completion or, with an environment, a conversation: it writes a turn, reads
an observation and continues with the same cache.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ovd_jax.models.sharding import fetch, row_shards
from ovd_jax.sampling.completion import Completion, Environment
from ovd_jax.sampling.decode import DecodeState, decode, regroup, row_rngs
from ovd_jax.sampling.decoder import Decoder
from ovd_jax.sampling.resume import prefill_observation, repack_cache
from ovd_jax.shapes import bucket, compact, right_pad, round_up

_POLL_EVERY = 16  # tokens decoded between two polls for finished rows
_MIN_SLOTS = 64  # first room for new tokens; it doubles when it is full
_MIN_WIDTH = 128  # least width of a repacked cache
_MIN_READ = 32  # least width of padded observations
_RESUME_SHARE = 0.25  # waiting rows resume together at this share of all rows


@dataclasses.dataclass
class Row:
    """The host's copy of a row; tokens from `offset` on have slots on the device."""

    prompt: int  # tokens
    limit: int  # most tokens behind the prompt
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    observed: list[bool] = dataclasses.field(default_factory=list)
    start: int = 0  # first token of the current turn
    offset: int = 0
    waited: bool = False  # its turn had ended before the last poll

    @property
    def cached(self) -> int:
        """Tokens with cached keys and values: all but the last."""
        return self.prompt + len(self.tokens) - 1

    def cut(self, size: int) -> None:
        """Keeps only the first `size` tokens."""
        for part in (self.tokens, self.logprobs, self.observed):
            del part[size:]

    def add(
        self, tokens: Sequence[int], logprobs: Sequence[float], *, observed: bool
    ) -> None:
        """Appends tokens."""
        self.tokens += tokens
        self.logprobs += logprobs
        self.observed += [observed] * len(tokens)

    def read(self, tokens: Sequence[int]) -> list[int]:
        """Appends an observation to an ended turn. Returns the tokens to prefill: the
        turn's last one and the observation without its last."""
        behind = [self.tokens[-1], *tokens[:-1]]
        self.add(list(tokens), [0.0] * len(tokens), observed=True)
        self.start = len(self.tokens)
        return behind


class Run:
    """A grid of rows on the device; the rows of a line share the cache of a prompt.

    A row whose turn has ended waits in place. Once `_RESUME_SHARE` of the rows wait, or
    none is sampled any more, all rows get lines of their own and the waiting rows
    resume. The time of resuming and all shapes depend on the tokens only: a slow search
    changes no number, and several processes stay in step.
    """

    def __init__(
        self,
        sampler,
        rows: list[Row],
        numbers_PG: np.ndarray,
        *,
        seed: int,
        draws: np.ndarray,
        environment: Environment | None,
    ):
        self.state: DecodeState  # the sampler's prefill gives it
        self.stop_ids = np.asarray(sampler.stop_ids or (-1,), np.int32)
        self.sampling = {
            name: getattr(sampler, name) for name in ("temperature", "top_k", "top_p")
        }
        self._sampler = sampler
        self._rows = rows
        self._seed = seed
        self._draws = draws  # a row's number for its random key
        self._environment = environment
        self._numbers_PG = numbers_PG
        self._open_PG = numbers_PG < len(rows)  # being sampled
        self._kept_PG = self._open_PG  # sampled or waiting
        # A resumed row has its last token in the first slot. A first turn gets as many
        # slots, so one program samples both.
        self._room = sampler.max_new_tokens + (environment is not None)
        self._given = 0  # slots filled when the rows resumed
        self._count = 1  # slots filled so far
        self.slots = self._slots(1)

    def completions(self, decoder: Decoder) -> Iterator[tuple[int, Completion]]:
        """Decodes until all rows have finished, and yields (row, completion) as they
        do."""
        finished = self.poll_finished()
        while self.goes_on:
            if self.is_to_resume():  # which may wait for the environment
                yield from finished
                finished = []
                self.resume(decoder)
            self.decode(decoder)
            yield from finished  # decoding goes on meanwhile
            finished = self.poll_finished()
        yield from finished

    @property
    def goes_on(self) -> bool:
        """True while a row is unfinished."""
        return bool(self._kept_PG.any())

    def poll_finished(self) -> list[tuple[int, Completion]]:
        """Fetches the tokens since the last poll; returns (row, completion) of the
        finished rows."""
        done_PG, tokens_PGY, logprobs_PGY = fetch(
            (self.state.done_PG, self.state.tokens_PGY, self.state.logprobs_PGY)
        )
        for number in self._waiting():
            self._rows[number].waited = True
        new, ended = slice(self._given, self._count), []
        for cell in map(tuple, np.argwhere(self._open_PG)):
            number = int(self._numbers_PG[cell])
            row = self._rows[number]
            row.cut(row.offset + self._given)
            tokens, logprobs = tokens_PGY[cell][new], logprobs_PGY[cell][new]
            row.add(tokens.tolist(), logprobs.tolist(), observed=False)
            turn = self._turn(row, done=bool(done_PG[cell]))
            if turn is not None:
                row.cut(row.start + len(turn.tokens))
                ended.append((cell, number, turn))
        return self._settle(ended)

    def _turn(self, row: Row, *, done: bool) -> Completion | None:
        """The row's turn if it has ended, by a stop token, its limit or a stop
        string."""
        tokens, limit = row.tokens[row.start :], self._end(row) - row.start
        found = self._sampler.stop_string_end(tokens)
        if not done and found is None:
            return None
        length = limit if found is None else min(found, limit)
        hits = np.flatnonzero(np.isin(tokens[:length], self.stop_ids))
        if hits.size:
            length = int(hits[0]) + 1
        logprobs = row.logprobs[row.start :]
        return Completion(
            tuple(tokens[:length]),
            tuple(logprobs[:length]),
            stopped=bool(hits.size) or (found is not None and found <= limit),
        )

    def _end(self, row: Row) -> int:
        """The row's number of tokens at which its turn must end."""
        return min(row.start + self._sampler.max_new_tokens, row.limit)

    def _settle(self, ended) -> list[tuple[int, Completion]]:
        """Asks the environment which rows continue; returns the others as finished."""
        rows = self._rows
        goes_on = [False] * len(ended)
        if self._environment is not None and ended:
            goes_on = self._environment.ended(
                [(n, turn, rows[n].limit - len(rows[n].tokens)) for _, n, turn in ended]
            )
        finished = []
        self._open_PG, self._kept_PG = self._open_PG.copy(), self._kept_PG.copy()
        for (cell, number, turn), waits in zip(ended, goes_on, strict=True):
            row = rows[number]
            row.waited = False
            self._open_PG[cell], self._kept_PG[cell] = False, waits
            if not waits:
                parts = (tuple(row.tokens), tuple(row.logprobs), turn.stopped)
                observed = tuple(row.observed) if self._environment else ()
                finished.append((number, Completion(*parts, observed)))
        return finished

    def decode(self, decoder: Decoder) -> None:
        """Samples further tokens, in a smaller grid if rows have left."""
        self._count = min(self._count + _POLL_EVERY, self._most)
        cells_PG, alive_PG = compact(
            self._kept_PG, self._sampler.min_rows, row_shards()
        )
        slots = self._slots(self._count)
        if cells_PG.size < self._kept_PG.size or slots > self.slots:
            self.slots = slots
            self.state = regroup(self.state, cells_PG, slots=slots)
            self._numbers_PG, self._open_PG = (
                x.ravel()[cells_PG] for x in (self._numbers_PG, self._open_PG)
            )
            self._kept_PG = alive_PG
            self._open_PG = self._open_PG & alive_PG
        self.state = decode(
            decoder,
            self.state.replace(done_PG=~self._open_PG),
            self.stop_ids,
            self._count,
            **self.sampling,
        )

    @property
    def _most(self) -> int:
        """The most slots that a row can fill."""
        return self._given + self._sampler.max_new_tokens

    def _slots(self, tokens: int) -> int:
        """Room for `tokens` tokens."""
        return min(bucket(max(tokens, _MIN_SLOTS)), self._room)

    def _waiting(self) -> list[int]:
        """The waiting rows, in order."""
        return sorted(self._numbers_PG[self._kept_PG & ~self._open_PG].tolist())

    def _resuming(self) -> list[int]:
        """The waiting rows. While others are sampled, only those waiting for at least
        one polling interval, so that their searches overlap decoding."""
        waiting = self._waiting()
        if not self._open_PG.any():
            return waiting
        return [number for number in waiting if self._rows[number].waited]

    def is_to_resume(self) -> bool:
        """True if waiting rows resume before others are sampled further."""
        resuming = len(self._resuming())
        return resuming > 0 and resuming >= _RESUME_SHARE * self._kept_PG.sum()

    def resume(self, decoder: Decoder) -> None:
        """Resumes the waiting rows, and gives every row a line of its own."""
        assert self._environment is not None  # else no row waits
        resuming = self._resuming()
        observations = self._environment.observations(resuming)
        cells = np.flatnonzero(self._kept_PG)
        cells = dict(zip(self._numbers_PG.flat[cells].tolist(), cells, strict=True))
        open_ones = {*self._numbers_PG[self._open_PG].tolist(), *resuming}
        numbers = [*resuming, *sorted(set(cells) - set(resuming))]
        rows = [self._rows[number] for number in numbers]
        own = [len(row.tokens) - row.offset - 1 for row in rows]
        cached = max(row.cached for row in rows)
        height = round_up(bucket(max(len(rows), self._sampler.min_rows)), row_shards())
        reads_JW, counts_J = padded_reads(with_observations(rows, observations), height)
        self._given = self._count = 1
        self.slots = self._slots(1)

        def column(values) -> np.ndarray:
            return np.pad(np.array(list(values)), (0, height - len(rows)))

        is_open_B = column(number in open_ones for number in numbers)
        self._numbers_PG = column(numbers)[:, None]
        self._open_PG = is_open_B[:, None]
        self._kept_PG = column(True for _ in rows)[:, None]
        state = repack_cache(
            self.state,
            column(cells[number] for number in numbers),
            column(own),
            column(row.tokens[-1] for row in rows),
            is_open_B * column(self._end(row) - row.offset for row in rows),
            row_rngs(self._seed, self._draws[self._numbers_PG]),
            column(row.offset for row in rows),
            width=self._sampler.width(max(_MIN_WIDTH, cached + reads_JW.shape[1])),
            slots=self.slots,
        )
        self.state = prefill_observation(decoder, state, reads_JW, counts_J)


def with_observations(rows: Sequence[Row], observations: Sequence) -> list[list[int]]:
    """Appends the observations to the first rows; returns the tokens to prefill of
    each."""
    reads = [
        row.read(tokens)
        for row, tokens in zip(rows[: len(observations)], observations, strict=True)
    ]
    for row in rows:
        row.offset = len(row.tokens) - 1
    return reads


def padded_reads(reads: list[list[int]], height: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, counts), padded to a quarter of `height` rows, half of them or all: few
    shapes are compiled."""
    rows = max(bucket(len(reads)), height // 4)
    rows = min(round_up(rows, row_shards()), height)
    tokens_JW, counts_J = right_pad(reads, rows, 1)
    counts_J[len(reads) :] = 0
    width = bucket(max(tokens_JW.shape[1], _MIN_READ))
    return np.pad(tokens_JW, ((0, 0), (0, width - tokens_JW.shape[1]))), counts_J

"""A run of the sampler: rows that are decoded together, and who of them goes on.

A row is a completion or, where there is an environment, a conversation: it writes a
turn, reads what the environment has for it, and writes on with the same cache.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ovd_jax.models.sharding import fetch, row_shards
from ovd_jax.sampling.completion import Completion, Environment
from ovd_jax.sampling.decode import decode, regroup, row_rngs
from ovd_jax.sampling.decoder import Decoder
from ovd_jax.sampling.resume import line_up, read_on
from ovd_jax.shapes import bucket, compact, right_pad, round_up

_LOOK_EVERY = 16  # tokens decoded between two looks at what has finished
_MIN_SLOTS = 64  # room for new tokens to begin with; it doubles when it is used up
_MIN_WIDTH = 128  # of a cache that rows rejoin in
_MIN_READ = 32  # tokens that a row reads at once; fewer are padded to as many
_JOIN_SHARE = 0.25  # of the rows: where as many wait, they read on


@dataclasses.dataclass
class Row:
    """What the host knows of a row; its tokens from `offset` on have slots on the
    device."""

    prompt: int  # tokens
    limit: int  # tokens behind the prompt, in all
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    observed: list[bool] = dataclasses.field(default_factory=list)
    start: int = 0  # of its turn
    offset: int = 0
    ripe: bool = False  # its turn had ended before the last look

    @property
    def cached(self) -> int:
        """Tokens whose keys and values are there: all but the last."""
        return self.prompt + len(self.tokens) - 1

    def cut(self, size: int) -> None:
        """Drops the tokens from the one numbered `size` on."""
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
        """Puts `tokens` behind a turn that has ended; gives those that are yet to be
        read before the next is sampled, but for the very last."""
        behind = [self.tokens[-1], *tokens[:-1]]
        self.add(list(tokens), [0.0] * len(tokens), observed=True)
        self.start = len(self.tokens)
        return behind


class Run:
    """Rows in a grid of the device's, whose lines share the cache of a prompt.

    A row whose turn has ended waits in its place until `_JOIN_SHARE` of the rows do, or
    none is sampled any more. Then all get lines of their own, in which the waiting ones
    read on. When that is, is a function of the tokens alone, and so are all shapes: a
    slow search changes no number, and several processes stay in step.
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
        self.state = None
        self.stop_ids = np.asarray(sampler.stop_ids or (-1,), np.int32)
        self.sampling = {
            name: getattr(sampler, name) for name in ("temperature", "top_k", "top_p")
        }
        self._sampler = sampler
        self._rows = rows
        self._seed = seed
        self._draws = draws  # by a row's number: what its random key is made of
        self._environment = environment
        self._numbers_PG = numbers_PG
        self._open_PG = numbers_PG < len(rows)  # sampled
        self._kept_PG = self._open_PG  # sampled or waiting
        # Slots of a turn: the first one's are as many as those of rows that have read
        # something, and have its last token in one. So both are sampled by one program.
        self._room = sampler.max_new_tokens + (environment is not None)
        self._given = 0  # slots that hold what was there when the rows joined
        self._count = 1  # slots filled so far
        self.slots = self._slots(1)

    def completions(self, decoder: Decoder) -> Iterator[tuple[int, Completion]]:
        """Decodes until all rows have finished, and yields (row, completion) as they
        do."""
        finished = self.look()
        while self.goes_on:
            if self.is_to_join():  # which may wait for the environment
                yield from finished
                finished = []
                self.join(decoder)
            self.decode(decoder)
            yield from finished  # decoding goes on meanwhile
            finished = self.look()
        yield from finished

    @property
    def goes_on(self) -> bool:
        """Whether any row has not finished."""
        return bool(self._kept_PG.any())

    def look(self) -> list[tuple[int, Completion]]:
        """Takes what was sampled since the last look: (row, completion) of what has
        finished."""
        done_PG, tokens_PGO, logprobs_PGO = fetch(
            (self.state.done_PG, self.state.tokens_PGO, self.state.logprobs_PGO)
        )
        for number in self._waiting():
            self._rows[number].ripe = True
        new, ended = slice(self._given, self._count), []
        for cell in map(tuple, np.argwhere(self._open_PG)):
            number = int(self._numbers_PG[cell])
            row = self._rows[number]
            row.cut(row.offset + self._given)
            tokens, logprobs = tokens_PGO[cell][new], logprobs_PGO[cell][new]
            row.add(tokens.tolist(), logprobs.tolist(), observed=False)
            turn = self._turn(row, done=bool(done_PG[cell]))
            if turn is not None:
                row.cut(row.start + len(turn.tokens))
                ended.append((cell, number, turn))
        return self._settle(ended)

    def _turn(self, row: Row, *, done: bool) -> Completion | None:
        """The row's turn if it has ended: up to its stop token, its limit, or the
        tokens that complete a stop string."""
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
        """How many tokens the row has when its turn must end."""
        return min(row.start + self._sampler.max_new_tokens, row.limit)

    def _settle(self, ended) -> list[tuple[int, Completion]]:
        """Asks the environment who goes on; the others have finished."""
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
            row.ripe = False
            self._open_PG[cell], self._kept_PG[cell] = False, waits
            if not waits:
                parts = (tuple(row.tokens), tuple(row.logprobs), turn.stopped)
                observed = tuple(row.observed) if self._environment else ()
                finished.append((number, Completion(*parts, observed)))
        return finished

    def decode(self, decoder: Decoder) -> None:
        """Has the device sample on, in a smaller grid where rows have left it."""
        self._count = min(self._count + _LOOK_EVERY, self._most)
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
        """Slots that a row can fill."""
        return self._given + self._sampler.max_new_tokens

    def _slots(self, tokens: int) -> int:
        """Room for `tokens` tokens."""
        return min(bucket(max(tokens, _MIN_SLOTS)), self._room)

    def _waiting(self) -> list[int]:
        """The rows that wait, in order."""
        return sorted(self._numbers_PG[self._kept_PG & ~self._open_PG].tolist())

    def _joining(self) -> list[int]:
        """The rows that wait; where others can be sampled meanwhile, only those that
        did so at the last look, too: their searches have had some time."""
        waiting = self._waiting()
        if not self._open_PG.any():
            return waiting
        return [number for number in waiting if self._rows[number].ripe]

    def is_to_join(self) -> bool:
        """Whether rows that wait read on before others are sampled further."""
        joining = len(self._joining())
        return joining > 0 and joining >= _JOIN_SHARE * self._kept_PG.sum()

    def join(self, decoder: Decoder) -> None:
        """Has rows that wait read on, and puts all into lines of their own."""
        joining = self._joining()
        observations = self._environment.observations(joining)
        cells = np.flatnonzero(self._kept_PG)
        cells = dict(zip(self._numbers_PG.flat[cells].tolist(), cells, strict=True))
        open_ones = {*self._numbers_PG[self._open_PG].tolist(), *joining}
        numbers = [*joining, *sorted(set(cells) - set(joining))]
        rows = [self._rows[number] for number in numbers]
        own = [len(row.tokens) - row.offset - 1 for row in rows]
        cached = max(row.cached for row in rows)
        height = round_up(bucket(max(len(rows), self._sampler.min_rows)), row_shards())
        reads_JW, counts_J = to_read(take_in(rows, observations), height)
        self._given = self._count = 1
        self.slots = self._slots(1)

        def column(values) -> np.ndarray:
            return np.pad(np.array(list(values)), (0, height - len(rows)))

        is_open_B = column(number in open_ones for number in numbers)
        self._numbers_PG = column(numbers)[:, None]
        self._open_PG = is_open_B[:, None]
        self._kept_PG = column(True for _ in rows)[:, None]
        state = line_up(
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
        self.state = read_on(decoder, state, reads_JW, counts_J)


def take_in(rows: Sequence[Row], observations: Sequence) -> list[list[int]]:
    """Appends the observations to the first rows; returns the tokens that each of them
    is yet to read before its next is sampled."""
    reads = [
        row.read(tokens)
        for row, tokens in zip(rows[: len(observations)], observations, strict=True)
    ]
    for row in rows:
        row.offset = len(row.tokens) - 1
    return reads


def to_read(reads: list[list[int]], height: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, counts) of a quarter of `height` rows, half of them or all: few shapes,
    for each is a program of its own."""
    rows = max(bucket(len(reads)), height // 4)
    rows = min(round_up(rows, row_shards()), height)
    tokens_JW, counts_J = right_pad(reads, rows, 1)
    counts_J[len(reads) :] = 0
    width = bucket(max(tokens_JW.shape[1], _MIN_READ))
    return np.pad(tokens_JW, ((0, 0), (0, width - tokens_JW.shape[1]))), counts_J

"""What a sampler is asked and answers, and what it converses with; host code may read
this."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Completion:
    """The tokens sampled after one prompt, the stop token included."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]  # under softmax(logits / temperature); 0 if not sampled
    stopped: bool  # by a stop token or string; False: cut at the limit
    observed: tuple[bool, ...] = ()  # True for tokens read; empty: none


class Environment(Protocol):
    """The environment of conversations. All processes make the same calls in order."""

    def ended(self, turns: Sequence[tuple[int, Completion, int]]) -> list[bool]:
        """True for each conversation that continues, from (row, turn, tokens left)."""
        ...

    def observations(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """The observation of each continuing row: at least one token, and fewer than it
        has left."""
        ...


class Generate(Protocol):
    """A sampler with its model: see `Sampler.__call__`."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Completion]]:
        """`samples` completions of each prompt."""
        ...


class Stream(Protocol):
    """The same, as completions finish: see `Sampler.stream`."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        samples: int = 1,
        limits: Sequence[int] | None = None,
        draws: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """(row, completion), where row i is sample `i % samples` of its prompt."""
        ...

"""Attempts at problems: requested by content, solved once, graded and counted."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from ovd_jax.sampling.completion import Stream
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Grade, Problem, Task
from ovd_jax.text import Tokenizer, decode


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request for one attempt. Equal problems have different seeds."""

    problem: Problem
    prompt: tuple[int, ...]  # its tokens
    seed: int  # of all draws in the attempt
    batch_seed: int = 0  # shared by the asks of one batch


@dataclasses.dataclass(frozen=True)
class Attempt:
    """The solution of one attempt."""

    text: str
    tokens: int
    stopped: bool  # False: cut at the budget
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)  # what it cost
    written: str | None = None  # what of `text` is graded; None: all of it


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A problem with its k attempts and their grades."""

    problem: Problem
    attempts: tuple[Attempt, ...]
    grades: tuple[Grade, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        """The rewards of the attempts, in order."""
        return tuple(grade.reward for grade in self.grades)


class Solver(Protocol):
    """Makes attempts: a student alone, one with a teacher, or an agent."""

    identity: Mapping  # JSON: all that decides an attempt, besides prompt and seed
    greedy: bool  # True: the seed changes nothing

    def solve(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Attempt]]:
        """Yields (index in `asks`, attempt) as the attempts finish."""
        ...


class Cache(Protocol):
    """A store of attempts: see ovd_jax/client/cache.py."""

    def get(self, key: Mapping) -> Mapping | None: ...

    def put(self, key: Mapping, value: Mapping) -> None: ...


class Quiet:
    """Shows no progress."""

    def __init__(self, total: int, start: int = 0):
        pass

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Does nothing; as `Progress.update`."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_) -> None:
        pass


class Direct:
    """The student alone: an attempt is one completion of the prompt.

    `rows` prompts are sampled at a time; all attempts at a problem share its prompt.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        tokenizer: Tokenizer,
        rows: int,
        identity: Mapping,
        greedy: bool,
    ):
        self.identity = identity
        self.greedy = greedy
        self._stream = stream
        self._tokenizer = tokenizer
        self._rows = rows

    def solve(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Attempt]]:
        """Yields attempts as they finish; each is drawn from its own seed."""
        for places in groups_of_equal_size(asks, self._rows):
            samples = len(places[0])
            stream = self._stream(
                [asks[group[0]].prompt for group in places],
                seed=0,
                samples=samples,
                draws=[[asks[place].seed for place in group] for group in places],
                **self._told([asks[group[0]].problem for group in places]),
            )
            for row, completion in stream:
                place = places[row // samples][row % samples]
                yield place, self._attempt(completion)

    def _told(self, problems: Sequence[Problem]) -> Mapping:
        """What else the stream is told: nothing of the problems."""
        return {}

    def _attempt(self, completion) -> Attempt:
        text = decode(self._tokenizer, completion.tokens)
        return Attempt(text, len(completion.tokens), completion.stopped)


def groups_of_equal_size(
    asks: Sequence[Ask], rows: int
) -> Iterator[list[tuple[int, ...]]]:
    """Batches of groups; a group holds the indices of the asks with one prompt.

    All groups of a batch have the same size, and a batch has at most `rows` groups.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for place, ask in enumerate(asks):
        by_prompt.setdefault(ask.prompt, []).append(place)
    by_size: dict[int, list[tuple[int, ...]]] = {}
    for group in by_prompt.values():
        by_size.setdefault(len(group), []).append(tuple(group))
    for groups in by_size.values():
        for start in range(0, len(groups), rows):
            yield groups[start : start + rows]


def make_asks(
    problems: Sequence[Problem],
    *,
    task: Task,
    tokenizer: Tokenizer,
    samples: int,
    seed: int,
    greedy: bool,
) -> list[Ask]:
    """`samples` asks for each problem, problem by problem.

    A seed depends on the prompt, the number of its earlier occurrences and the sample,
    not on the problem's id or the other problems. Greedy attempts need no seed, so
    equal prompts are solved once. Asks with one `batch_seed` have different prompts.
    """
    asks, seen = [], Counter()
    for problem in problems:
        text = task.prompt(problem)
        prompt = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        digest = hashlib.sha256(repr(prompt).encode()).hexdigest()
        for sample in range(samples):
            drawn = derive(seed, "evaluate", digest, seen[prompt], sample)
            batch = derive(seed, "batch", seen[prompt] * samples + sample)
            asks.append(Ask(problem, prompt, 0 if greedy else drawn, batch))
        seen[prompt] += 1
    return asks


def evaluate(
    problems: Sequence[Problem],
    *,
    task: Task,
    solver: Solver,
    tokenizer: Tokenizer,
    samples: int,
    seed: int,
    cache: Cache | None = None,
    progress: Callable = Quiet,
) -> list[Evaluated]:
    """Solves and grades every problem `samples` times; none is dropped or merged.

    Attempts in the `cache` are not solved again. `progress` is a class like `Progress`.
    """
    asks = make_asks(
        problems,
        task=task,
        tokenizer=tokenizer,
        samples=samples,
        seed=seed,
        greedy=solver.greedy,
    )
    attempts = attempt_all(asks, solver=solver, cache=cache, progress=progress)
    grades = task.grade(
        [ask.problem for ask in asks],
        [x.text if x.written is None else x.written for x in attempts],
    )
    cuts = [slice(i, i + samples) for i in range(0, len(asks), samples)]
    return [
        Evaluated(problem, tuple(attempts[cut]), tuple(grades[cut]))
        for problem, cut in zip(problems, cuts, strict=True)
    ]


def attempt_all(
    asks: Sequence[Ask],
    *,
    solver: Solver,
    cache: Cache | None,
    progress: Callable,
) -> list[Attempt]:
    """The attempt of each ask: cached ones first, then new ones, each cached at once.

    Asks with equal prompts and seeds share one attempt.
    """
    found: dict[tuple, Attempt] = {}
    distinct = {(ask.prompt, ask.seed): ask for ask in asks}
    if cache is not None:
        for content, ask in distinct.items():
            kept = cache.get(key_of(ask, solver))
            if kept is not None:
                found[content] = Attempt(**kept)
    missing = [ask for content, ask in distinct.items() if content not in found]
    with progress(len(distinct), len(found)) as bar:
        for place, attempt in solver.solve(missing):
            ask = missing[place]
            if cache is not None:
                cache.put(key_of(ask, solver), dataclasses.asdict(attempt))
            found[ask.prompt, ask.seed] = attempt
            bar.update(len(found) - 1, {})
    return [found[ask.prompt, ask.seed] for ask in asks]


def key_of(ask: Ask, solver: Solver) -> dict:
    """The cache key of an attempt: everything that decides its text, as JSON."""
    return {**solver.identity, "prompt": list(ask.prompt), "seed": ask.seed}

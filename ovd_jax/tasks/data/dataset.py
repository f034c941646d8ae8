"""Problems from files or the hub as a task draws them: some to train on, others held
out."""

import functools
import warnings
from collections.abc import Callable

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Problem
from ovd_jax.text import Tokenizer

HELD_OUT_SHARE = 0.1
MAX_HELD_OUT = 500


class Dataset:
    """Training and held-out problems.

    Args:
        data: where the training problems are: what `load` takes. Empty for a task that
            only evaluates what it is given.
        held_out_data: the same, for evaluation. Training problems with a question of
            these are left out. Where it is empty, a tenth of `data`, at most 500
            problems, is held out instead, unless `data` has fewer than 3.
        seed: of the order of the problems, and of which ones are held out.
        load: `(data, "train" or "eval") -> problems`.
    """

    def __init__(
        self,
        data: str,
        held_out_data: str,
        *,
        seed: int,
        load: Callable[[str, str], tuple[Problem, ...]],
    ):
        self._data = data
        self._seed = seed
        self._load = load
        self._train: tuple[Problem, ...] = ()
        self._held_out: tuple[Problem, ...] = ()
        if not data:
            return
        problems = load(data, "train")
        if held_out_data:
            self._held_out = load(held_out_data, "eval")
            self._train = _without(problems, self._held_out, held_out_data)
        else:
            self._train, self._held_out = _split(problems, seed)

    def drop_long(
        self, prompt: Callable[[Problem], str], tokenizer: Tokenizer, limit: int
    ) -> None:
        """Removes training problems whose prompt has more than `limit` tokens."""
        if not self._train:
            return
        prompts = [prompt(problem) for problem in self._train]
        encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        kept = tuple(
            problem
            for problem, tokens in zip(self._train, encoded, strict=True)
            if len(tokens) <= limit
        )
        dropped = len(self._train) - len(kept)
        if not kept:
            raise UserError(
                f"All {dropped} prompts are over max_prompt_tokens={limit}; raise it."
            )
        if dropped:
            warnings.warn(
                f"{dropped} training problems are left out: their prompts are over "
                f"max_prompt_tokens={limit}.",
                stacklevel=4,
            )
        self._train = kept

    def problems(self, step: int, count: int) -> tuple[Problem, ...]:
        """The next `count` problems of an endless sequence of epochs, each shuffled
        again."""
        size = len(self._train)
        if not size:
            raise UserError("There are no training problems: set config.data.")
        picked = []
        for position in range(step * count, (step + 1) * count):
            epoch, place = divmod(position, size)
            picked.append(self._train[_order(self._seed, epoch + 1, size)[place]])
        return tuple(picked)

    def held_out(self, count: int) -> tuple[Problem, ...]:
        """`count` problems spread evenly over the held-out ones; all if there are
        fewer."""
        if not self._held_out:
            raise UserError(
                f"{self._data!r} has {len(self._train)} problem(s), too few to hold "
                "some out; set held_out_data, or in training eval_problems to 0."
            )
        size = len(self._held_out)
        count = min(count, size)
        return tuple(self._held_out[index * size // count] for index in range(count))

    def load(self, source: str) -> tuple[Problem, ...]:
        """All evaluation problems of a source."""
        return self._load(source, "eval")


class DatasetTask:
    """The problems of a task from a `Dataset`; subclasses pose and grade them."""

    _dataset: Dataset

    def problems(self, step: int, count: int) -> tuple[Problem, ...]:
        """The next `count` problems of an endless sequence of epochs, each shuffled
        again."""
        return self._dataset.problems(step, count)

    def held_out(self, count: int) -> tuple[Problem, ...]:
        """`count` problems spread evenly over the held-out ones; all if there are
        fewer."""
        return self._dataset.held_out(count)

    def load(self, source: str) -> tuple[Problem, ...]:
        """All evaluation problems of a source."""
        return self._dataset.load(source)


def _without(
    problems: tuple[Problem, ...], held_out: tuple[Problem, ...], held_out_data: str
) -> tuple[Problem, ...]:
    questions = {problem.question for problem in held_out}
    kept = tuple(problem for problem in problems if problem.question not in questions)
    if not kept:
        raise UserError(
            f"All {len(problems)} training problems are also in {held_out_data!r}; "
            "pass other data for one of the two."
        )
    if len(kept) < len(problems):
        warnings.warn(
            f"{len(problems) - len(kept)} training problems are left out, since they "
            f"are also in {held_out_data!r}.",
            stacklevel=4,
        )
    return kept


def _split(problems: tuple[Problem, ...], seed: int):
    """(train, held out): the last tenth of a shuffle, and no question in both."""
    size = len(problems)
    held = min(max(1, int(size * HELD_OUT_SHARE)), MAX_HELD_OUT) if size > 2 else 0
    shuffled = [problems[index] for index in _order(seed, 0, size)]
    held_out = tuple(shuffled[size - held :])
    questions = {problem.question for problem in held_out}
    train = tuple(p for p in shuffled[: size - held] if p.question not in questions)
    return (train, held_out) if train else (problems, ())


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)

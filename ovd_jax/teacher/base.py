"""The requests to a teacher and its answers, however it is reached."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Protocol

from ovd_jax.errors import TeacherError, UserError
from ovd_jax.seeds import derive

RequestKey = tuple[int, ...]  # of a request among those that share a seed


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """A request to judge `text`: one step after `previous` or, if `whole`, a complete
    solution."""

    question: str
    previous: str  # the steps before, as written; empty if `whole`
    text: str
    whole: bool
    reference: str = ""  # the gold answer: in training, for a prompt that shows it


@dataclasses.dataclass(frozen=True)
class DemonstrationRequest:
    """A request to continue `prefix` to the end of the solution or, with `stop`, for
    one step."""

    question: str
    prefix: str
    attempt: int = 0  # higher if an earlier answer was not usable
    stop: str = ""  # ends the answer, included in it
    past_stop: bool = False  # True: continue past it, the step has not ended

    @property
    def stops_at(self) -> str:
        """The string at which the answer stops early; empty if it does not."""
        return "" if self.past_stop else self.stop


@dataclasses.dataclass(frozen=True)
class Score:
    """A verbal score and its distribution."""

    value: float  # 0..levels-1; whole unless read as `expected`
    probs: tuple[float, ...]  # over the levels, summing to 1
    outside: float  # the probability of everything but the labels


# A trial request that any judge and solver can answer.
TRIAL = ScoreRequest(
    "What is 1 + 1?",
    previous="",
    text="1 + 1 = 2.\nThe answer is \\boxed{2}.",
    whole=True,
    reference="2",
)


class Teacher(Protocol):
    """A judge and demonstrator that is reached through text only.

    To add one, write a class with these members and name it in `config.teacher.model`:
    see examples/own_teacher.py. It sees the gold answer only if the user's prompt has a
    slot for it. A teacher that answers while this process computes may also have
    `begin`: see `OpenAITeacher`.
    """

    @property
    def levels(self) -> int:
        """The number of scores v: they are 0..v-1."""
        ...

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[Score | None]:
        """One score a request; None if there is none and the trajectory is to be
        dropped. Raises TeacherError.

        The draw of a request depends on `seed` and its key, by default its index: see
        `draw_seeds`.
        """
        ...

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        request_keys: Sequence[RequestKey] | None = None,
    ) -> list[str | None]:
        """The continuation of each prefix; None without a complete one. Draws are as in
        `score`.

        If a request has a `stop`, an answer that was cut at the budget is used up to
        its last `stop`: see `complete_part`.
        """
        ...

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """Explains why each solution is wrong and how to improve it; None without an
        answer."""
        ...

    def metrics(self) -> dict[str, float | None]:
        """Counts of requests since the last call, and the seconds waited for them."""
        ...


def complete_part(text: str, request: DemonstrationRequest, *, cut: bool) -> str | None:
    """The usable part of an answer: all of it or, if it was cut at the budget, up to
    the last `stop` of the request; None if there is none."""
    if not cut:
        return text
    end = text.rfind(request.stop) if request.stop else -1
    return text[: end + len(request.stop)] if end >= 0 else None


def draw_seeds(
    seed: int, request_keys: Sequence[RequestKey] | None, count: int
) -> list[int]:
    """The seed of each of `count` requests."""
    request_keys = (
        [(index,) for index in range(count)] if request_keys is None else request_keys
    )
    return [derive(seed, *place) for place in request_keys]


def read_score(
    masses: Sequence[float], *, rule: str, temperature: float, rng: random.Random
) -> Score:
    """Reads a score off the label probabilities `masses`, which may sum to less than 1.

    `sample` draws from p^(1/temperature), `argmax` takes the likeliest (the lower of
    two equals, and so at a temperature of 0), `expected` the mean. Raises TeacherError
    if no label has any mass.
    """
    total = sum(masses)
    if not total > 0:
        raise TeacherError(
            "The teacher gave no probability to any score label; its prompt must ask "
            "for a bare number."
        )
    probs = tuple(mass / total for mass in masses)
    outside = max(0.0, 1.0 - total)
    if rule == "argmax" or (rule == "sample" and not temperature):
        return Score(float(probs.index(max(probs))), probs, outside)
    if rule == "expected":
        return Score(sum(i * p for i, p in enumerate(probs)), probs, outside)
    if rule != "sample":
        raise UserError(f"score rule {rule!r} is not one of sample, argmax, expected.")
    peak = max(probs)
    tempered = [(p / peak) ** (1 / temperature) for p in probs]
    return Score(float(rng.choices(range(len(probs)), tempered)[0]), probs, outside)

"""What a teacher is asked and what it answers; nothing here knows how it is reached."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Protocol

from ovd_jax.errors import TeacherError, UserError
from ovd_jax.seeds import derive

Place = tuple[int, ...]  # of a request among all that share a seed


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """Judge `text`: one step after `previous`, or, if `whole`, a complete solution."""

    question: str
    previous: str  # the steps before, as written; empty if `whole`
    text: str
    whole: bool
    reference: str = ""  # the gold answer: in training, for a prompt that shows it


@dataclasses.dataclass(frozen=True)
class DemonstrationRequest:
    """Go on from `prefix`, a beginning of a solution, to its end; or, if `stop` is
    given, for a step."""

    question: str
    prefix: str
    attempt: int = 0  # counts on where an earlier answer was of no use
    stop: str = ""  # ends the answer, as part of it
    past_stop: bool = False  # write on behind it: the step has not ended there

    @property
    def stops_at(self) -> str:
        """Where the answer is to stop, short of its end; empty: nowhere."""
        return "" if self.past_stop else self.stop


@dataclasses.dataclass(frozen=True)
class Score:
    """A verbal score and the distribution that it was read from."""

    value: float  # 0..levels-1; whole unless read as `expected`
    probs: tuple[float, ...]  # over the levels, summing to 1
    outside: float  # the probability that the teacher gave to no label at all


# What a teacher is tried with: any judge and any solver knows what to say.
TRIAL = ScoreRequest(
    "What is 1 + 1?",
    previous="",
    text="1 + 1 = 2.\nThe answer is \\boxed{2}.",
    whole=True,
    reference="2",
)


class Teacher(Protocol):
    """A judge and demonstrator that is reached through text alone.

    To add one, write a class with these members and name it in `config.teacher.model`:
    see examples/own_teacher.py.
    It sees the gold answer only where the prompt that the user chose has a slot for it.
    One that answers beside this process may have `begin` too: see `OpenAITeacher`, and
    `Pending` for what it returns.
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
        places: Sequence[Place] | None = None,
    ) -> list[Score | None]:
        """One score a request; None where there is none and the trajectory is to be
        left out of the training. Raises TeacherError.

        What a request draws is a function of `seed` and its place, which is its index
        where none are given: see `draw_seeds`.
        """
        ...

    def demonstrate(
        self,
        requests: Sequence[DemonstrationRequest],
        *,
        seed: int,
        places: Sequence[Place] | None = None,
    ) -> list[str | None]:
        """What follows each prefix; None where no complete solution came. Draws are
        those of `score`.

        Where a request has a `stop`, an answer that was cut at the budget counts up to
        its last `stop`: see `complete_part`.
        """
        ...

    def feedback(
        self, requests: Sequence[ScoreRequest], *, seed: int
    ) -> list[str | None]:
        """In words, why each solution is wrong and how to do better; None where no
        answer came."""
        ...

    def metrics(self) -> dict[str, float | None]:
        """What was asked since the last call, and the seconds waited for it."""
        ...


def complete_part(text: str, request: DemonstrationRequest, *, cut: bool) -> str | None:
    """What of an answer may be used: all of it unless it was cut at the budget; then
    what ends with the request's `stop`, None if nothing does."""
    if not cut:
        return text
    end = text.rfind(request.stop) if request.stop else -1
    return text[: end + len(request.stop)] if end >= 0 else None


def draw_seeds(seed: int, places: Sequence[Place] | None, count: int) -> list[int]:
    """The seed of each of `count` requests."""
    places = [(index,) for index in range(count)] if places is None else places
    return [derive(seed, *place) for place in places]


def read_score(
    masses: Sequence[float], *, rule: str, temperature: float, rng: random.Random
) -> Score:
    """Reads a score off the label probabilities `masses` (they may sum to less than 1).

    `sample` draws from p^(1/temperature), `argmax` takes the likeliest (the lower of
    two equals), `expected` the mean. Raises TeacherError where no label has any mass.
    """
    total = sum(masses)
    if not total > 0:
        raise TeacherError(
            "The teacher gave no probability to any score label; its prompt must ask "
            "for a bare number."
        )
    probs = tuple(mass / total for mass in masses)
    outside = max(0.0, 1.0 - total)
    if rule == "argmax":
        return Score(float(probs.index(max(probs))), probs, outside)
    if rule == "expected":
        return Score(sum(i * p for i, p in enumerate(probs)), probs, outside)
    if rule != "sample":
        raise UserError(f"score rule {rule!r} is not one of sample, argmax, expected.")
    peak = max(probs)
    tempered = [(p / peak) ** (1 / temperature) for p in probs]
    return Score(float(rng.choices(range(len(probs)), tempered)[0]), probs, outside)

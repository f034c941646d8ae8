"""Verbal rejection sampling of conversations: a step is a turn, with what it brought.

The teacher is the environment agent: it scores each turn, and rewrites the thought and
query (or answer) of one that is rejected; the engine supplies the documents, and the
student goes on (section 3.3).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from ovd_jax.conversation.dialogue import Dialogue, action, first_turn
from ovd_jax.conversation.metrics import search_metrics
from ovd_jax.errors import UserError
from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.trajectory import (
    Group,
    Trajectory,
    make_conversation,
    pieces,
)
from ovd_jax.search.tags import ANSWER
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import DemonstrationRequest, Teacher


class SearchCollector(Collector):
    """A collector whose trajectories are conversations."""

    def __init__(self, *, dialogue: Dialogue, **parts):
        super().__init__(**parts)
        self.dialogue = dialogue
        total = dialogue.rules.total_tokens  # the sampler's bound is of a turn
        self.rules = rules = dataclasses.replace(self.rules, max_new_tokens=total)
        if rules.threshold > 0 and rules.replacement != "step":
            raise UserError(
                f"replacement {rules.replacement!r} would have the teacher make up "
                "search results; set replacement to step and granularity to step or "
                "hybrid."
            )

    def collect(
        self,
        problems: Sequence[Problem],
        generate: Callable,
        *,
        seed: int,
        stream: Callable | None = None,
    ) -> list[Group]:
        """As `Collector.collect`, each trajectory a conversation; `generate` and
        `stream` are the sampler's, with a model."""
        converse = functools.partial(self.dialogue.generate, problems=problems)
        if stream is not None:
            stream = functools.partial(converse, stream)
        generate = functools.partial(converse, generate)
        return super().collect(problems, generate, seed=seed, stream=stream)

    def begin(self, step: int) -> None:
        """Tells a simulated engine how far the training is."""
        self.dialogue.pool.begin(step)

    def judge_failed(self, error: BaseException) -> None:
        """Ends the searches that sampling waits for: an engine that is away must not
        hide the error."""
        self.dialogue.pool.end(error)

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """What the conversations did, and what their searches cost."""
        own = super().metrics(groups) | search_metrics(groups)
        return own | self.dialogue.metrics()

    def continued(
        self, openings: Sequence[Trajectory], problems, prompts, generate, *, seed: int
    ) -> list[Trajectory]:
        """Each opening, whose last turn is the teacher's, with what that finds and what
        the student makes of it; one that ends with an answer is complete."""
        trajectories = [dataclasses.replace(o, stopped=True) for o in openings]
        searching = [
            i for i, o in enumerate(openings) if action(o.turns[-1]).kind != ANSWER
        ]
        if not searching:
            return trajectories
        opened, asked, behind = (
            [x[i] for i in searching] for x in (openings, problems, prompts)
        )
        found = self.dialogue.look_up(
            [o.turns[-1] for o in opened],
            [self._room(o) for o in opened],
            seed=seed,
            problems=asked,
        )
        opened = [
            self.trajectory(*with_reading(o, tokens), stopped=False)
            for o, tokens in zip(opened, found, strict=True)
        ]
        tails = generate(
            [(*p, *o.tokens) for p, o in zip(behind, opened, strict=True)],
            seed=seed,
            limits=[self.rules.max_new_tokens - len(o.tokens) for o in opened],
            problems=asked,
            searches=[len(o.turns) for o in opened],
        )
        for i, opening, (tail,) in zip(searching, opened, tails, strict=True):
            trajectories[i] = self.sampled(tail, opening)
        return trajectories

    def first_step(self, text: str | None, kept: int) -> list[int]:
        """Tokens of the teacher's turn; none where it is not valid, or where there is
        no room for what it finds."""
        turn = first_turn(text or "")
        if turn is None:
            return []
        tokens = self.encode(turn)
        room = self.rules.max_new_tokens - kept - len(tokens)
        least = 0 if action(turn).kind == ANSWER else self.dialogue.least_room
        return tokens if room >= least else []

    def demonstrated_steps(
        self, requests: Sequence[DemonstrationRequest], *, seed: int
    ) -> list[str | None]:
        """A teacher of conversations stops at the end of a turn."""
        return self.teacher.demonstrate(requests, seed=derive(seed, "teacher"))

    def trajectory(
        self, tokens, logprobs, from_teacher, observed=(), *, stopped
    ) -> Trajectory:
        """The conversation; by `rules.mask_void` one in which a turn did nothing valid
        is not trained on."""
        made = make_conversation(
            tokens, logprobs, from_teacher, observed or (False,) * len(tokens),
            stopped=stopped, decode=self.dialogue.decode,
        )  # fmt: skip
        void = any(action(turn).kind == "invalid" for turn in made.turns)
        return dataclasses.replace(
            made, trained=not (void and self.dialogue.rules.mask_void)
        )

    def _room(self, opening: Trajectory) -> int:
        """Tokens for what an opening's last turn finds, one kept for the student."""
        return self.rules.max_new_tokens - len(opening.tokens) - 1


def with_reading(opening: Trajectory, tokens: Sequence[int]) -> tuple[tuple, ...]:
    """The pieces of `opening` with `tokens` read behind it."""
    size = len(tokens)
    added = (tuple(tokens), (0.0,) * size, (False,) * size, (True,) * size)
    return tuple(a + b for a, b in zip(pieces(opening), added, strict=True))


def solve(
    teacher: Teacher, dialogue: Dialogue, problems: Sequence[Problem], *, seed: int
) -> list[str]:
    """What the teacher answers by itself: turn by turn, with what its queries find."""
    texts = [""] * len(problems)
    going = list(range(len(problems)))
    for number in range(dialogue.rules.searches + 1):
        replies = teacher.demonstrate(
            [DemonstrationRequest(problems[i].asked, texts[i]) for i in going],
            seed=derive(seed, "turn", number),
        )
        turns = [first_turn(reply or "") for reply in replies]
        wrote = {i: turn for i, turn in zip(going, turns, strict=True) if turn}
        for i, turn in wrote.items():
            texts[i] += turn
        going = [i for i, turn in wrote.items() if action(turn).kind != ANSWER]
        found = dialogue.look_up(
            [wrote[i] for i in going],
            [dialogue.rules.observation_tokens] * len(going),
            seed=derive(seed, "search", number),
            problems=[problems[i] for i in going],
        )
        for i, tokens in zip(going, found, strict=True):
            texts[i] += dialogue.decode(tokens)
    return texts

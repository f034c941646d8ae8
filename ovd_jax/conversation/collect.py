"""Verbal rejection sampling of conversations: a step is a turn, with what it brought.

The teacher scores each turn, and rewrites one that is rejected; the environment says
what the student reads after it, and the student goes on (section 3.3).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from ovd_jax.conversation.batch import History
from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.conversation.metrics import conversation_metrics, history_of
from ovd_jax.errors import UserError
from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.trajectory import (
    Group,
    Trajectory,
    make_conversation,
    pieces,
)
from ovd_jax.sampling.completion import Completion, Generate, Stream
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem
from ovd_jax.teacher.base import DemonstrationRequest, Teacher


class ConversationCollector(Collector):
    """A collector whose trajectories are conversations."""

    def __init__(self, *, dialogue: Dialogue, **parts):
        super().__init__(**parts)
        self.dialogue = dialogue
        total = dialogue.rules.total_tokens  # the sampler's bound is of a turn
        self.rules = rules = dataclasses.replace(self.rules, max_new_tokens=total)
        if rules.threshold > 0 and rules.replacement != "step":
            raise UserError(
                f"replacement {rules.replacement!r} would have the teacher make up "
                "what the environment answers; set replacement to step and granularity "
                "to step or hybrid."
            )

    def collect(
        self,
        problems: Sequence[Problem],
        generate: Generate,
        *,
        seed: int,
        stream: Stream | None = None,
    ) -> list[Group]:
        """As `Collector.collect`, each trajectory a conversation; `generate` and
        `stream` are the sampler's, with a model."""
        converse = functools.partial(self.dialogue.generate, problems=problems)
        if stream is not None:
            stream = functools.partial(converse, stream)
        generate = functools.partial(converse, generate)
        return super().collect(problems, generate, seed=seed, stream=stream)

    def begin(self, step: int) -> None:
        """Tells tools that change in the course of the training how far it is."""
        self.dialogue.tools.begin(step)

    def judge_failed(self, error: BaseException) -> None:
        """Ends the calls that sampling waits for: a tool that is away must not hide the
        error."""
        self.dialogue.tools.end(error)

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """What the conversations did, and what their calls cost."""
        own = super().metrics(groups) | conversation_metrics(groups, self.dialogue)
        return own | self.dialogue.metrics()

    def continued(
        self,
        openings: Sequence[Trajectory],
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        generate: Callable[..., list[list[Completion]]],
        *,
        seed: int,
    ) -> list[Trajectory]:
        """Each opening, whose last turn is the teacher's, with what that brings and
        what the student makes of it; one that the turn ends is complete."""
        trajectories = [dataclasses.replace(o, stopped=True) for o in openings]
        going = [
            i for i, o in enumerate(openings) if not self.dialogue.ends(o.turns[-1])
        ]
        if not going:
            return trajectories
        opened = [openings[i] for i in going]
        asked, behind = [problems[i] for i in going], [prompts[i] for i in going]
        read = self.dialogue.look_up(
            [history_of(o).before_reading() for o in opened],
            [self._room(o) for o in opened],
            seed=seed,
            problems=asked,
        )
        opened = [
            self.trajectory(*with_reading(o, tokens), stopped=False)
            for o, tokens in zip(opened, read, strict=True)
        ]
        tails = generate(
            [(*p, *o.tokens) for p, o in zip(behind, opened, strict=True)],
            seed=seed,
            limits=[self.rules.max_new_tokens - len(o.tokens) for o in opened],
            problems=asked,
            histories=[history_of(o) for o in opened],
        )
        for i, opening, (tail,) in zip(going, opened, tails, strict=True):
            trajectories[i] = self.sampled(tail, opening)
        return trajectories

    def first_step(self, text: str | None, kept: int) -> list[int]:
        """Tokens of the teacher's turn, and an end token where it ends the conversation
        by saying nothing more; none where it is not valid, or where there is no room
        for what it brings."""
        turn = self.dialogue.first_turn(text or "")
        if turn is None:
            return []
        ends = self.dialogue.ends(turn)
        tokens = self.encode_behind(turn, kept)
        if ends and not turn.endswith(self.dialogue.env.turn_ends):
            tokens = [*tokens, self.tokenizer.eos_token_id]
        room = self.rules.max_new_tokens - kept - len(tokens)
        return tokens if room >= (0 if ends else self.dialogue.least_room) else []

    def demonstrated_steps(
        self, requests: Sequence[DemonstrationRequest], *, seed: int
    ) -> list[str | None]:
        """A teacher of conversations stops at the end of a turn."""
        return self.need_teacher().demonstrate(requests, seed=derive(seed, "teacher"))

    def trajectory(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        from_teacher: Sequence[bool],
        observed: Sequence[bool] = (),
        *,
        stopped: bool,
    ) -> Trajectory:
        """The conversation; with `rules.mask_invalid`, one with an invalid turn is not
        trained on."""
        made = make_conversation(
            tokens, logprobs, from_teacher, observed or (False,) * len(tokens),
            stopped=stopped, decode=self.dialogue.decode,
        )  # fmt: skip
        checked = self.dialogue.rules.mask_invalid
        invalid = checked and not all(map(self.dialogue.is_valid, made.turns))
        return dataclasses.replace(made, trained=not invalid)

    def _room(self, opening: Trajectory) -> int:
        """Tokens for what an opening's last turn brings, one kept for the student."""
        return self.rules.max_new_tokens - len(opening.tokens) - 1


def with_reading(opening: Trajectory, tokens: Sequence[int]) -> tuple[tuple, ...]:
    """The pieces of `opening` with `tokens` read behind it."""
    size = len(tokens)
    added = (tuple(tokens), (0.0,) * size, (False,) * size, (True,) * size)
    return tuple(a + b for a, b in zip(pieces(opening), added, strict=True))


def solve(
    teacher: Teacher, dialogue: Dialogue, problems: Sequence[Problem], *, seed: int
) -> list[str]:
    """What the task grades of what the teacher writes by itself: turn by turn, with
    what its calls bring."""
    histories = [History()] * len(problems)
    texts = [""] * len(problems)
    going = list(range(len(problems)))
    for number in range(dialogue.rules.max_observations + 1):
        replies = teacher.demonstrate(
            [DemonstrationRequest(problems[i].asked, texts[i]) for i in going],
            seed=derive(seed, "turn", number),
        )
        turns = [dialogue.first_turn(reply or "") for reply in replies]
        wrote = {i: turn for i, turn in zip(going, turns, strict=True) if turn}
        for i, turn in wrote.items():
            texts[i] += turn
            histories[i] = histories[i].and_turn(turn)
        going = [i for i, turn in wrote.items() if not dialogue.ends(turn)]
        read = dialogue.look_up(
            [histories[i] for i in going],
            [dialogue.rules.observation_tokens] * len(going),
            seed=derive(seed, "search", number),
            problems=[problems[i].without_gold() for i in going],
        )
        for i, tokens in zip(going, read, strict=True):
            observation = dialogue.decode(tokens)
            texts[i] += observation
            histories[i] = histories[i].and_observation(observation)
    return [
        dialogue.graded(history.turns, text)
        for history, text in zip(histories, texts, strict=True)
    ]

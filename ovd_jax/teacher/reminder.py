"""Messages that would come again and again, said once a minute at most."""

import logging
import time
from collections import deque
from collections.abc import Sequence

from ovd_jax.teacher.base import Score, TeacherError
from ovd_jax.teacher.replies import Unreadable

_log = logging.getLogger(__name__)
_PAUSE = 60.0  # seconds between two messages of a kind
_RECENT = 64  # scores whose mass outside of the labels is averaged
_MOST_OUTSIDE = 0.5
_HOPELESS = 8  # problems in a row none of whose questions is answered


class Reminder:
    """Tells whether it is time for a message again."""

    def __init__(self):
        self._said_at = float("-inf")

    def due(self) -> bool:
        """Whether the last message that was due is a minute ago; then this one is."""
        now = time.monotonic()
        if now - self._said_at < _PAUSE:
            return False
        self._said_at = now
        return True


class OutsideMass:
    """Warns where most of the judge's probability goes to no label."""

    def __init__(self):
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._reminder = Reminder()

    def add(self, scores: Sequence[Score | None]) -> None:
        """Takes note of scores; warns if more than half of the probability in the
        latest ones is outside of the labels."""
        self._recent.extend(score.outside for score in scores if score is not None)
        mean = sum(self._recent) / max(1, len(self._recent))
        if mean > _MOST_OUTSIDE and self._reminder.due():
            _log.warning(
                "The teacher gives %.0f %% of its probability to answers that are no "
                "score label (score_outside_mass %.2f), so its scores say little. "
                "Choose a teacher.prompt that it follows, or another model; one that "
                "thinks before it answers cannot be a judge.",
                100 * mean,
                mean,
            )


class Refusals:
    """Counts questions that a server refuses or answers without a label, and ends the
    run where it does nothing else."""

    def __init__(self):
        self._count = 0
        self._in_a_row: set[int] = set()  # homes of the questions since an answer
        self._answered = False
        self._reminder = Reminder()

    def answered(self) -> None:
        """Takes note of a question that was answered."""
        self._answered = True
        self._in_a_row.clear()

    def add(self, home: int, error: TeacherError) -> None:
        """Takes note of one that was not; `home` is its problem's. Raises TeacherError
        where no question is answered: there was no label yet, or none of the last
        problems had an answer."""
        self._count += 1
        self._in_a_row.add(home)
        never_read = isinstance(error, Unreadable) and not self._answered
        if never_read or len(self._in_a_row) >= _HOPELESS:
            raise TeacherError(f"The teacher answers no question of this run. {error}")
        if self._reminder.due():
            _log.warning(
                "The teacher did not answer a question, which is left out (%d of them "
                "until now). %s",
                self._count,
                error,
            )

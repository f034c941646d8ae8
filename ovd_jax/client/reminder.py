"""Repeats recurring messages at most once a minute."""

import logging
import time

from ovd_jax.client.replies import Unreadable
from ovd_jax.errors import TeacherError

_log = logging.getLogger(__name__)
_PAUSE = 60.0  # seconds between two messages of a kind
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


class Refusals:
    """Counts questions that a server refuses or answers without a label, and ends the
    run where it does nothing else."""

    def __init__(self, role: str = "teacher"):
        self._role = role  # of the server, in messages
        self._count = 0
        self._in_a_row: set[int] = set()  # affinities of the questions since an answer
        self._answered = False
        self._reminder = Reminder()

    def answered(self) -> None:
        """Takes note of a question that was answered."""
        self._answered = True
        self._in_a_row.clear()

    def add(self, affinity: int, error: TeacherError) -> None:
        """Counts a question without an answer; `affinity` is its problem's. Raises
        TeacherError if no question was ever answered, or none of the last problems."""
        self._count += 1
        self._in_a_row.add(affinity)
        never_read = isinstance(error, Unreadable) and not self._answered
        if never_read or len(self._in_a_row) >= _HOPELESS:
            raise TeacherError(
                f"The {self._role} answers no question of this run. {error}"
            )
        if self._reminder.due():
            _log.warning(
                "The %s did not answer a question, which is left out (%d of them until "
                "now). %s",
                self._role,
                self._count,
                error,
            )

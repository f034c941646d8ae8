"""Warns of judges that give most probability to no score label."""

import logging
from collections import deque
from collections.abc import Sequence

from ovd_jax.client.reminder import Reminder
from ovd_jax.teacher.base import Score

_log = logging.getLogger(__name__)
_RECENT = 64  # scores whose mass outside of the labels is averaged
_MOST_OUTSIDE = 0.5


class OutsideMass:
    """Averages the probability outside the labels."""

    def __init__(self):
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._reminder = Reminder()

    def add(self, scores: Sequence[Score | None]) -> None:
        """Adds scores; warns if more than half of the recent probability is outside the
        labels."""
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

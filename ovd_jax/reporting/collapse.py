"""Stops a run that no longer learns.

Steps with non-finite gradients are skipped; if that continues, nothing is learnt. GRPO
on search is known to break down: the policy loses its entropy, writes invalid turns, or
all rewards of a group become equal, and the reward does not recover.
"""

import logging
import math
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)
_JUDGE_WINDOW = 10  # steps


class Collapsed(RuntimeError):
    """The run broke down; the message says how, and what to do."""


class CollapseDetector:
    """Checks the metrics of each step against `bounds`, (metric, "below" or "above",
    value).

    `window` steps in a row beyond a bound are a collapse, and so are `max_skipped`
    optimizer steps in a row with a non-finite gradient.
    """

    def __init__(
        self,
        bounds: Mapping[str, tuple[str, str, float]],
        *,
        window: int,
        max_skipped: int,
    ):
        self._bounds = bounds
        self._window = window
        self._max_skipped = max_skipped
        self._seen = defaultdict(lambda: deque(maxlen=window))

    @classmethod
    def of(
        cls,
        *,
        window: int,
        entropy: float,
        zero_spread: float,
        invalid_rate: float,
        short: float,
        truncated: float,
        max_skipped: int,
    ) -> "CollapseDetector":
        """The detector of the knobs with these names; a bound of 0 is off."""
        bounds = {
            "entropy": ("entropy", "below", entropy),
            "zero_spread": ("zero_spread_share", "above", zero_spread),
            "invalid_rate": ("invalid_rate", "above", invalid_rate),
            "short": ("completion_tokens", "below", short),
            "truncated": ("truncated_share", "above", truncated),
        }
        bounds = {name: bound for name, bound in bounds.items() if bound[2]}
        return cls(bounds, window=window, max_skipped=max_skipped)

    def check(self, row: Mapping[str, float]) -> None:
        """Takes the metrics of the next step. Raises Collapsed."""
        if row.get("skipped_in_a_row", 0) >= self._max_skipped:
            raise Collapsed(skipped_too_often(row))
        for name, (metric, side, bound) in self._bounds.items():
            if not self._window or metric not in row:
                continue
            value = row[metric]
            is_bad = value < bound if side == "below" else value > bound
            seen = self._seen[name]
            if not is_bad:
                seen.clear()
                continue
            seen.append(value)
            if len(seen) == self._window:
                raise Collapsed(
                    f"The run has collapsed: {metric} was {side} {bound} for the last "
                    f"{self._window} steps, now {value:.3g}. Its last state is kept "
                    "as a checkpoint. Begin again from an earlier one with a lower "
                    "learning rate, a higher kl_coef or clip_high, or "
                    f"turns.mask_invalid; config.collapse.{name} moves this bound and "
                    "0 takes it away."
                )


def skipped_too_often(row: Mapping[str, float]) -> str:
    """The message for non-finite gradients, step after step."""
    seen = [
        f"{name} {value}"
        for name, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    return (
        f"The gradient was not finite in the last {int(row['skipped_in_a_row'])} "
        "optimizer steps, which were skipped: nothing is learnt any more. Not finite "
        f"were {', '.join(seen) or 'single tokens alone'}; the loss was "
        f"{row['loss']:.3g}. The last state is kept as a checkpoint. Begin again from "
        "an earlier one with a lower learning rate, or compute_dtype float32; "
        "config.max_skipped is how many in a row end a run."
    )


def stop_if_collapsed(
    detector: CollapseDetector, row: Mapping, checkpoints: Any, state: Any
) -> None:
    """Raises Collapsed if the run has collapsed, after saving its state."""
    try:
        detector.check(row)
    except Collapsed:
        checkpoints.save(state, force=True)
        checkpoints.close()
        raise


class JudgeWatch:
    """Warns if the accepted trajectories are right less often than all samples: the
    judge does not tell right from wrong. At most once in ten steps."""

    def __init__(self):
        self._seen = []  # (share of the accepted that are right, accuracy)

    def check(self, row: Mapping[str, float | None]) -> None:
        """Takes the metrics of the next step."""
        if row.get("accepted_right") is None:
            return
        self._seen.append((row["accepted_right"], row["accuracy"]))
        if len(self._seen) < _JUDGE_WINDOW:
            return
        precision, accuracy = (
            sum(values) / _JUDGE_WINDOW for values in zip(*self._seen, strict=True)
        )
        self._seen.clear()
        if precision < accuracy:
            _log.warning(
                "In the last %d steps %.0f%% of the accepted trajectories were right, "
                "and %.0f%% of all that the student sampled: the teacher does not tell "
                "right from wrong. Audit it with configs/teacher_audit.py, or change "
                "threshold, teacher.prompt or teacher.model.",
                _JUDGE_WINDOW, 100 * precision, 100 * accuracy,
            )  # fmt: skip

"""The rules of verbal rejection sampling."""

import dataclasses
import typing
from typing import Literal

from ovd_jax.errors import UserError

Granularity = Literal["trajectory", "step", "hybrid", "none"]
Aggregation = Literal["min", "mean", "last"]
Rejection = Literal["score", "score_or_incorrect", "soft"]
Replacement = Literal["trajectory", "step", "suffix"]
Feedback = Literal["none", "keep", "revise"]
Credit = Literal["trajectory", "step", "hybrid"]
Baseline = Literal["after", "before", "union", "leave_one_out"]


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of verbal rejection sampling; configs/default.py explains each.

    Raises UserError for unknown or contradicting rules.
    """

    samples: int
    max_new_tokens: int
    granularity: Granularity
    step_aggregation: Aggregation
    rejection: Rejection
    threshold: float
    beta: float
    replacement: Replacement
    demonstration_tries: int
    max_replaced_steps: int
    feedback: Feedback
    credit: Credit
    only_correct: bool

    def __post_init__(self):
        for name, kind in typing.get_type_hints(Rules).items():
            words = typing.get_args(kind)  # of a Literal
            if words and getattr(self, name) not in words:
                raise UserError(
                    f"{name} {getattr(self, name)!r} is not one of {', '.join(words)}."
                )
        if self.feedback == "revise" and self.replacement == "step":
            raise UserError(
                "feedback 'revise' gives whole solutions: set replacement to "
                "trajectory or suffix."
            )
        if self.granularity in ("none", "trajectory"):
            for name in ("replacement", "credit"):
                if getattr(self, name) != "trajectory":
                    raise UserError(
                        f"{name} {getattr(self, name)!r} needs the scores of steps: "
                        "set granularity to step or hybrid."
                    )

    def rejects_all(self, levels: int) -> bool:
        """True if no score of a teacher with so many levels is accepted."""
        return self.rejection != "soft" and self.threshold > levels - 1

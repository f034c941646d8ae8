"""The rules of verbal rejection sampling."""

import dataclasses

from ovd_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of verbal rejection sampling; configs/default.py explains each.

    Raises UserError for unknown or contradicting rules.
    """

    samples: int
    max_new_tokens: int
    granularity: str
    step_aggregation: str
    rejection: str
    threshold: float
    beta: float
    replacement: str
    demonstration_tries: int
    max_replaced_steps: int
    feedback: str
    credit: str
    only_correct: bool

    def __post_init__(self):
        known = {
            "granularity": ("trajectory", "step", "hybrid", "none"),
            "replacement": ("trajectory", "step", "suffix"),
            "feedback": ("none", "keep", "revise"),
            "credit": ("trajectory", "step", "hybrid"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise UserError(
                    f"{name} {getattr(self, name)!r} is not one of {', '.join(values)}."
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

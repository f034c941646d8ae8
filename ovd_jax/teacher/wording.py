"""Templates that a teacher is asked in: their fields, and how slots are filled safely.

What fills a slot is a model's or a stranger's text. It cannot form a special token, it
cannot repeat what the template fences its slots with (tags such as `</solution>` and
runs of punctuation such as `---`), and it is of bounded length.
"""

import bisect
import dataclasses
import functools
import itertools
import logging
import re
from collections.abc import Callable

from ovd_jax.errors import UserError
from ovd_jax.template import check_fields, fields_of
from ovd_jax.text import control_pattern, neutralize

_log = logging.getLogger(__name__)

# Template: (fields it needs, fields it may have).
FIELDS = {
    "score_step": ({"question", "previous", "step"}, {"reference"}),
    "score_trajectory": ({"question", "solution"}, {"reference"}),
    "demonstrate": ({"question"}, set()),
    "feedback": ({"question", "solution"}, {"reference"}),
    "revise": ({"question", "solution", "feedback"}, set()),
}
OPTIONAL = ("feedback", "revise")  # templates that may be empty
MAX_SLOT = 20_000  # characters; the middle of a longer text is left out
_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")
_RULE = re.compile(r"([^\w\s{}])\1{2,}")


@dataclasses.dataclass(frozen=True)
class TeacherPrompt:
    """One way to put the questions; UserError for missing or unknown fields."""

    score_step: str
    score_trajectory: str
    demonstrate: str
    labels: tuple[str, ...]  # the words it may answer with, the worst first
    feedback: str = ""  # asks why a solution is wrong and how to improve it
    revise: str = ""  # asks the student to solve it again with the feedback
    chat: bool = True  # wrapped in the model's chat template

    def __post_init__(self):
        for name, (needed, possible) in FIELDS.items():
            template = getattr(self, name)
            if name in OPTIONAL and not template:
                continue
            check_fields(name, template, needed, possible)
        labels = self.labels
        if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
            raise UserError(f"labels {labels} must be two or more different words.")

    def thresholds(self) -> list[float]:
        """A threshold for each level and one that rejects all: the labels and what
        would come next, if they are rising numbers; else the levels, 0 for the worst.
        """
        try:
            marks = [float(label) for label in self.labels]
        except ValueError:
            marks = [0.0, 0.0]
        if any(b <= a for a, b in itertools.pairwise(marks)):
            marks = [float(level) for level in range(len(self.labels))]
        return [*marks, 2 * marks[-1] - marks[-2]]

    def level_of(self, threshold: float) -> float:
        """What level from 0, the worst label, to their number `threshold` stands for: a
        score is accepted iff it is at that level or above it. Raises UserError for one
        that is above all."""
        marks = self.thresholds()
        if threshold > marks[-1]:
            raise UserError(
                f"threshold {threshold:g} is too high for the scores of this teacher, "
                f"{marks[0]:g} to {marks[-2]:g}; {marks[-1]:g} rejects all."
            )
        above = bisect.bisect_left(marks, threshold)
        if above == 0:
            return 0.0
        low, high = marks[above - 1 : above + 1]
        return above - 1 + (threshold - low) / (high - low)

    @property
    def shows_reference(self) -> bool:
        """Whether a judge is shown the gold answer: in training only."""
        names = ("score_step", "score_trajectory", "feedback")
        return any("reference" in fields_of(x, getattr(self, x)) for x in names)


def fill(
    template: str,
    special_tokens: tuple[str, ...],
    *,
    on_cut: Callable[[str], None] = lambda name: None,
    **slots: str,
) -> str:
    """The template with its slots filled; what is in them, even in two that touch,
    cannot form a special token or a fence of the template. `on_cut` is told the name of
    each slot whose text is too long."""
    # Every second part is a special token of the template's own.
    own = control_pattern(tuple(special_tokens)).pattern
    parts = re.split(f"({own})", template)
    fences = _fences("".join(parts[::2]))
    for name, text in slots.items():
        if len(text) > MAX_SLOT:
            _say_cut(name)
            on_cut(name)
        slots[name] = _opened(harmless(text, special_tokens), fences)
    parts[::2] = [
        neutralize(part.format(**slots), special_tokens) for part in parts[::2]
    ]
    return "".join(parts)


def harmless(text: str, special_tokens: tuple[str, ...]) -> str:
    """`text` of bounded length, of characters that encode, without special tokens."""
    if len(text) > MAX_SLOT:
        half = MAX_SLOT // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return neutralize(text, special_tokens)


@functools.lru_cache
def _say_cut(name: str) -> None:
    """Says once of each slot that the middle of a text is left out."""
    _log.warning(
        "A text for the slot {%s} of a prompt has more than %d characters: its middle "
        "is left out. This is said once; the metrics count it.", name, MAX_SLOT,
    )  # fmt: skip


def _opened(text: str, fences: re.Pattern | None) -> str:
    """`text` in which tags that are fences are in round brackets, and runs of
    punctuation have spaces in them."""

    def opened(fence: re.Match) -> str:
        return f"({fence[0][1:-1]})" if fence[0][0] == "<" else " ".join(fence[0])

    return fences.sub(opened, text) if fences else text


@functools.lru_cache
def _fences(template: str) -> re.Pattern | None:
    """What matches each fence of a template, tags in any case and spacing."""
    names = {re.escape(name) for name in _TAG.findall(template)}
    patterns = [rf"(?i:<\s{{0,9}}/?\s{{0,9}}(?:{'|'.join(sorted(names))})\s{{0,9}}/?>)"]
    marks = {match[1] for match in _RULE.finditer(template)}
    patterns = patterns if names else []
    patterns += [rf"{re.escape(mark)}{{3,}}" for mark in sorted(marks)]
    return re.compile("|".join(patterns)) if patterns else None

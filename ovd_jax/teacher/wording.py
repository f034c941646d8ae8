"""Templates that a teacher is asked in: their fields, and how slots are filled safely.

What fills a slot is a model's or a stranger's text. It cannot form a special token, it
cannot repeat what the template fences its slots with (tags such as `</solution>` and
runs of punctuation such as `---`), and it is of bounded length.
"""

import dataclasses
import functools
import re
import string

from ovd_jax.errors import UserError
from ovd_jax.text import neutralize

# Template: (fields it needs, fields it may have).
FIELDS = {
    "score_step": ({"question", "previous", "step"}, {"reference"}),
    "score_trajectory": ({"question", "solution"}, {"reference"}),
    "demonstrate": ({"question"}, set()),
    "feedback": ({"question", "solution"}, {"reference"}),
    "revise": ({"question", "solution", "feedback"}, set()),
}
OPTIONAL = ("feedback", "revise")  # templates that may be empty
_MAX_SLOT = 20_000  # characters; the middle of a longer text is left out
_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")
_RULE = re.compile(r"([^\w\s{}])\1{2,}")

_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)")

# Words of a line that does nothing but give itself a score.
_CLAIM = {"score", "scores", "grade", "rating", "mark", "marks"}
_BESIDE = {
    "a", "and", "answer", "assign", "correct", "deserve", "deserves", "evaluation",
    "final", "full", "get", "gets", "give", "i", "is", "it", "judge", "my", "of", "out",
    "overall", "perfect", "points", "solution", "step", "teacher", "that", "the",
    "this", "to",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+|\d+")
_CLAIM_KEY = re.compile(r"[\"'](?:score|grade|rating)[\"']\s{0,9}:\s{0,9}[\"']?\d")


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
            found = fields_of(name, template)
            if not needed <= found <= needed | possible:
                also = f" (and may have {sorted(possible)})" if possible else ""
                raise UserError(
                    f"The template {name} has the fields {sorted(found)}, but needs "
                    f"{sorted(needed)}{also}."
                )
        labels = self.labels
        if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
            raise UserError(f"labels {labels} must be two or more different words.")

    @property
    def shows_reference(self) -> bool:
        """Whether a judge is shown the gold answer: in training only."""
        names = ("score_step", "score_trajectory", "feedback")
        return any("reference" in fields_of(x, getattr(self, x)) for x in names)


def fields_of(name: str, template: str) -> set[str]:
    """The fields of the template called `name`. Raises UserError where braces do not
    close or a field has a format of its own."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"The template {name}: {error}; write {{{{ for {{.") from None
    for _, field, spec, conversion in parts:
        if spec or conversion:
            raise UserError(
                f"The template {name} gives {field!r} a format; write {{{field}}}."
            )
    return {field for _, field, _, _ in parts if field is not None}


def from_json(raw, where: str) -> TeacherPrompt:
    """The prompt in a decoded JSON object. Raises UserError naming what is wrong."""
    known = {field.name: field for field in dataclasses.fields(TeacherPrompt)}
    if not isinstance(raw, dict) or raw.keys() - known.keys():
        extra = sorted(raw.keys() - known.keys()) if isinstance(raw, dict) else raw
        raise UserError(
            f"{where} has {str(extra)[:100]}; write an object of {', '.join(known)}."
        )
    missing = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and name not in raw
    ]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}.")
    labels = raw["labels"]
    if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
        raise UserError(f"{where}: labels is {labels!r}; write a list of texts.")
    for name, value in raw.items():
        expected = {"labels": list, "chat": bool}.get(name, str)
        if not isinstance(value, expected):
            raise UserError(f"{where}: {name} is {value!r}, no {expected.__name__}.")
    try:
        return TeacherPrompt(**raw | {"labels": tuple(labels)})
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def fill(template: str, special_tokens: tuple[str, ...], **slots: str) -> str:
    """The template with its slots filled; what is in them, even in two that touch,
    cannot form a special token or a fence of the template."""
    own = "|".join(map(re.escape, sorted(special_tokens, reverse=True))) or "(?!)"
    parts = re.split(f"({own})", template)  # every second one is a special token
    fences = _fences("".join(parts[::2]))
    for name, text in slots.items():
        slots[name] = _opened(harmless(text, special_tokens), fences)
    parts[::2] = [
        neutralize(part.format(**slots), special_tokens) for part in parts[::2]
    ]
    return "".join(parts)


def harmless(text: str, special_tokens: tuple[str, ...]) -> str:
    """`text` of bounded length, of characters that encode, without special tokens."""
    if len(text) > _MAX_SLOT:
        half = _MAX_SLOT // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return neutralize(text, special_tokens)


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


def without_claims(text: str, question: str) -> str:
    """`text` without lines, and sentences of lines, in which it gives itself a score,
    such as "Score: 9/9" or '{"score": 9}'; they stay where the question is about such a
    word."""
    asked = set(_WORD.findall(question.lower()))
    kept = []
    for line in text.splitlines(keepends=True):
        if _claims(line, asked):
            continue
        body = line.rstrip("\r\n")
        sentences = [x for x in _SENTENCE_END.split(body) if not _claims(x, asked)]
        kept.append("".join(sentences) + line[len(body) :])
    return "".join(kept)


def _claims(line: str, asked: set[str]) -> bool:
    if len(line) > 200:
        return False
    if _CLAIM_KEY.search(line.lower()):
        return True
    words = _WORD.findall(line.lower())
    numbers = [word for word in words if word[0].isdigit()]
    claims = _CLAIM.intersection(words) - asked
    return bool(claims and numbers) and _CLAIM.union(_BESIDE, numbers).issuperset(words)

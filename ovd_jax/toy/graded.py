"""A scale of arithmetic steps with content, which the embedded teacher is taught.

9       right, and a student who goes on from it ends right at least 98 % of the time
8       right, at least 95 %
7       right, at least 90 %
6       right, less often
4       one number is off by at most two
3       one number or sign is wrong
2       two of them are
1       more are
0       no expression, or nothing left to go on from
"""

import bisect
import re
from collections.abc import Iterator, Sequence

from ovd_jax.tasks.arithmetic import ANSWER, evaluate, reductions

RIGHT = 6  # the lowest score of a right step: 5 keeps the two sides apart
_CHANCES = (0.9, 0.95, 0.98)  # each brings one more: most steps leave a good chance
_TOKEN = re.compile(r"\d+|[-+*()]")
_NEAR = 2  # the most that a near miss is off by


def is_right(before: str, step: str) -> bool:
    """Whether `step` has the value of the line before it."""
    old, new = evaluate(before), evaluate(step)
    return old is not None and new is not None and old[0] == new[0]


def is_answer(step: str) -> bool:
    """Whether `step` ends a solution with a number."""
    return step.startswith(ANSWER) and (evaluate(step) or (0, 1))[1] == 0


def right_score(chance: float) -> int:
    """The score of a right step after which a student ends right with this chance."""
    return RIGHT + bisect.bisect_right(_CHANCES, chance)


def wrong_score(before: str, step: str) -> int:
    """The score 0-4 of a wrong step: how far it is from the nearest right one."""
    if evaluate(before) is None or evaluate(step) is None:
        return 0
    written = tokens_of(step)
    return max(nearness(tokens_of(right), written) for right in reductions(before))


def nearness(right: Sequence[str], written: Sequence[str]) -> int:
    """4 to 1: see the module's table."""
    distance = edits(right, written)
    if distance == 1 and len(right) == len(written):
        pair = next((a, b) for a, b in zip(right, written, strict=True) if a != b)
        if all(token.isdigit() for token in pair):
            return 4 if abs(int(pair[0]) - int(pair[1])) <= _NEAR else 3
    return max(1, 4 - distance)


def tokens_of(line: str) -> list[str]:
    """Numbers, signs and brackets of a line, without the answer mark."""
    return _TOKEN.findall(line.removeprefix(ANSWER))


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance of two sequences of tokens."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right)),
            )
    return row[-1]


def right_prefixes(question: str, lines: Sequence[str]) -> Iterator[int]:
    """How many lines precede each place whose chance is to be known: after a right line
    that does not answer."""
    before = question
    for count, line in enumerate(lines, 1):
        if is_right(before, line) and not is_answer(line):
            yield count
        before = line


def graded(question: str, lines: Sequence[str], chances: dict[int, float]) -> list[int]:
    """The score of every line; `chances` holds those of `right_prefixes`."""
    scores, before = [], question
    for count, line in enumerate(lines, 1):
        if not is_right(before, line):
            scores.append(wrong_score(before, line))
        else:
            scores.append(right_score(1.0 if is_answer(line) else chances[count]))
        before = line
    return scores

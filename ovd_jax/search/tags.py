"""The tags in which a search agent writes, and what stands between them.

A model's reading and writing of them is plain text: what a stranger wrote is kept from
holding any by `search/observation.py`.
"""

import re

THINK, SEARCH, INFORMATION, ANSWER = "think", "search", "information", "answer"
TAGS = tuple(
    mark for name in (THINK, SEARCH, INFORMATION, ANSWER)
    for mark in (f"<{name}>", f"</{name}>")
)  # fmt: skip


def contents(text: str, name: str) -> list[str]:
    """What stands in each closed `name` tag, without outer blanks, in order.

    The last opening tag before a closing one belongs to it; time is linear.
    """
    found = []
    *closed, _ = text.split(f"</{name}>")
    for part in closed:
        _, opened, content = part.rpartition(f"<{name}>")
        if opened:
            found.append(content.strip())
    return found


def found_by_queries(text: str) -> list[str]:
    """What stands in the information tags right behind each query: a turn ends with its
    query, so that no student has written there."""
    _, *behind = text.split(f"</{SEARCH}>")
    read = [part.lstrip() for part in behind]
    return [
        found
        for part in read
        if part.startswith(f"<{INFORMATION}>")
        for found in contents(part, INFORMATION)[:1]
    ]


def turn_ends(text: str) -> tuple[int, ...]:
    """Where the turns of a trajectory end: after each observation and at the answer.

    An observation belongs to the turn that asked for it, blanks after a turn to that
    turn; text after the last one is a turn of its own.
    """
    closing = rf"</(?:{INFORMATION}|{ANSWER})>\s*"
    ends = [match.end() for match in re.finditer(closing, text)]
    return tuple(ends if ends[-1:] == [len(text)] or not text else [*ends, len(text)])

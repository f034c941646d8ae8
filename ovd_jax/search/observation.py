"""From documents to what the student reads: the one place that makes them harmless.

Retrieved and simulated text is a stranger's. In it no tag, no special token and no line
of its own survives, so it can neither end a turn, nor leave the observation, nor pass
for a document of its own; and its length is bounded.
"""

import re
from collections.abc import Collection, Sequence

from ovd_jax.errors import UserError
from ovd_jax.search.base import Document
from ovd_jax.search.tags import ANSWER, INFORMATION, SEARCH, THINK
from ovd_jax.text import neutralize

NOTHING_FOUND = "No documents were found."
WRAPPER = (f"\n<{INFORMATION}>\n", f"\n</{INFORMATION}>\n")
_MAX_TITLE = 120  # characters


def tag_bracket(names: Collection[str]) -> re.Pattern:
    """What matches the bracket of tags of these names, also of one that only a model
    would take for a tag."""
    words = "|".join(map(re.escape, names))
    return re.compile(rf"[<\uff1c\ufe64\u2039](?=\s*/?\s*(?:{words})\b)", re.IGNORECASE)


_BRACKET = tag_bracket((THINK, SEARCH, INFORMATION, ANSWER))


def observation(
    documents: Sequence[Document], special_tokens: Collection[str], max_chars: int
) -> str:
    """The documents as lines "Doc 1(Title: ...) ..." between information tags.

    Each gets an equal share of `max_chars`, so a long one cannot displace the others.
    `special_tokens` are those of the student's tokenizer.
    """
    before, behind = WRAPPER
    return before + body(documents, special_tokens, max_chars) + behind


def check_message(text: str) -> None:
    """Raises UserError for a tag in our own words to the student, such as a correction:
    an answer is looked for in all of a text."""
    if found := _BRACKET.search(text):
        raise UserError(
            f"What a student reads may hold no tag, and {text!r} has one at "
            f"{text[found.start() : found.start() + 9]!r}; write 'answer tags', say."
        )


def shortened(documents: Sequence[Document], max_chars: int) -> int:
    """The number of documents that an observation of `max_chars` cuts."""
    share = _share(documents, max_chars)
    return sum(len(document.text) > share for document in documents)


def _share(documents: Sequence[Document], max_chars: int) -> int:
    return max_chars // max(1, len(documents))


def body(
    documents: Sequence[Document], special_tokens: Collection[str], max_chars: int
) -> str:
    """What stands between the tags of an `observation`."""
    share = _share(documents, max_chars)
    lines = [
        f"Doc {number}(Title: {plain(document.title, _MAX_TITLE)}) "
        f"{plain(document.text, share)}"
        for number, document in enumerate(documents, 1)
    ]
    # Special tokens last: titles, numbers and texts touch.
    return neutralize("\n".join(lines), special_tokens) or NOTHING_FOUND


def plain(text: str, max_chars: int) -> str:
    """`text` on one line, printable, without our tags, and limited in length."""
    # 4: for blanks and characters that go away
    shown = "".join(c for c in text[: 4 * max_chars] if c.isprintable() or c.isspace())
    line = _BRACKET.sub("(", " ".join(shown.split()))
    return line if len(line) <= max_chars else line[: max(0, max_chars - 3)] + "..."

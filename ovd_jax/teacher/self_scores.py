"""Removes the scores that a text gives itself."""

import re
from collections.abc import Callable, Sequence

from ovd_jax.teacher.claims import (
    BARE,
    EXPLICIT,
    NO,
    claim,
    is_title,
    is_value,
    names_score,
)

DIGITS = tuple("0123456789")
LEFT = "[a score that it gives itself]"  # where nothing else was said
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)|(?<=[\u3002\uff01\uff1f])(?=.)")
_BRACKETS = re.compile(r"[(\[{\uff08\u3010][^()\[\]{}\uff08\uff09\u3010\u3011\n]{1,80}"
                       r"[)\]}\uff09\u3011]")  # fmt: skip
_PART = re.compile(r"(\s[-\u2013\u2014|]{1,3}\s|[;,\uff0c\u3001\uff1b])")
_KEY = re.compile(
    r"[\"']([\w -]{1,30})[\"']\s{0,4}:\s{0,4}[\"']?([\d./ ]{1,12})[\"']?\s?,?\s?"
)
_ELEMENT = re.compile(r"<([^\W\d_][\w-]{0,30})>\s{0,9}([\d./ ]{1,12})</\1>")


def strip_self_scores(
    text: str,
    question: str,
    labels: Sequence[str] = DIGITS,
    on_claim: Callable[[], None] = lambda: None,
) -> str:
    """`text` without the lines, sentences and parts of sentences in which it gives
    itself a score on the scale of `labels`, such as "Score: 9/9" or '{"score": 9}'.

    `on_claim` is called once for each. Where the question is about scores a score is
    left alone unless the text says that it is its own. A text that would be left empty
    says instead that it did nothing else.
    """
    without = _Without(question, labels, on_claim)
    lines = text.splitlines(keepends=True)
    kept = "".join(without.of_lines(lines))
    if text.strip() and not kept.strip():
        return LEFT + text[len(text.rstrip()) :]
    return kept


class _Without:
    """What is left of lines, sentences and parts of them."""

    def __init__(self, question: str, labels: Sequence[str], on_claim: Callable):
        self._question, self._labels = question, tuple(labels)
        self._on_claim = on_claim

    def of_lines(self, lines: Sequence[str]) -> list[str]:
        kept, title = [], None  # the index in `kept` of a line such as "Score:"
        for line in lines:
            body = line.rstrip("\r\n")
            if title is not None and is_value(body, self._labels):
                titled = self._is_claim(f"{kept[title]} {body}", BARE)
                if titled:
                    kept[title], title = "", None
                    continue
            if self._is_claim(body, BARE):
                continue
            if body.strip():
                title = len(kept) if is_title(body) else None
            kept.append(self._of_line(body) + line[len(body) :])
        return kept

    def _of_line(self, line: str) -> str:
        for pattern in (_KEY, _ELEMENT):
            line = pattern.sub(self._of_pair, line)
        sentences = _SENTENCE_END.split(line)
        if len(sentences) > 1:
            sentences = [x for x in sentences if not self._is_claim(x, BARE)]
        return "".join(map(self._of_sentence, sentences))

    def _of_pair(self, pair: re.Match) -> str:
        said = names_score(pair[1]) and self._is_claim(f"score: {pair[2]}", BARE)
        return "" if said else pair[0]

    def _of_sentence(self, sentence: str) -> str:
        sentence = _BRACKETS.sub(
            lambda part: "" if self._is_claim(part[0], BARE) else part[0], sentence
        )
        first, *others = _PART.split(sentence)
        kept = [first]
        for mark, part in zip(others[::2], others[1::2], strict=True):
            if not self._is_claim(part, EXPLICIT):
                kept += [mark, part]
        return "".join(kept)

    def _is_claim(self, text: str, least: int) -> bool:
        found = claim(text, self._question, self._labels)
        said = found != NO and found >= least
        if said:
            self._on_claim()
        return said

"""The final answer that a solution gives."""

import collections
import re

BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
# "The answer is", and in Chinese "the answer is", "hence choose", "hence fill in".
ANSWER_PHRASE = re.compile(
    r"(?:answer(?:\s+is|\s*:)|\u7b54\u6848(?:\u662f|\u4e3a)?|\u6545(?:\u9009|\u586b))"
    r"[\s:\uff1a*$]*(?:\\[\[(]\s*)?",
    re.IGNORECASE,
)
FULL_STOP = r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)\.(?=\s|$)|\u3002|\n"
SENTENCE_END = re.compile(FULL_STOP)
FORMULA_END = re.compile(rf"(?<!\\)\$|\\[\])]|{FULL_STOP}")
LAST_NUMBER = re.compile(
    r"(?:(?<![\w.])-)?"
    r"(?:\\[dt]?frac\{-?\d+\}\{\d+\}|(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?)"
)


def extract_answer(text: str) -> str | None:
    r"""The final answer of a solution, or None if it gives none; linear in its length.

    That is the last closed `\boxed{...}`, else what follows the last `####`, else what
    follows the last "answer is", else the last number.
    """
    for find in (last_boxed, _after_hashes, _after_phrase):
        if answer := find(text):
            return answer
    number = _last(LAST_NUMBER, text)
    return number[0] if number else None


def last_boxed(text: str) -> str | None:
    open_braces: list[int | None] = []  # where the content of a box starts, else None
    best = (-1, "")
    for token in BOX_TOKEN.finditer(text):
        if token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces:
            start = open_braces.pop()
            if start is not None and start > best[0]:
                best = (start, text[start : token.start()].strip())
        elif token[0].endswith("{") and len(token[0]) > 2:
            open_braces.append(token.end())
    return best[1] or None


def _after_hashes(text: str) -> str | None:
    _, mark, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0].strip() or None if mark else None


def _after_phrase(text: str) -> str | None:
    phrase = _last(ANSWER_PHRASE, text)
    if phrase is None:
        return None
    formula = phrase[0].rstrip().endswith(("$", r"\[", r"\("))
    end = FORMULA_END if formula else SENTENCE_END
    return end.split(text[phrase.end() :], maxsplit=1)[0].strip(" *") or None


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    return next(iter(collections.deque(pattern.finditer(text), maxlen=1)), None)

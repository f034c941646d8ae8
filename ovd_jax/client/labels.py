# ruff: noqa: RUF001
"""Reading one of the score labels off an answer, however a judge dresses it.

Markdown, quotes, JSON, "Score: 7", "7/9" and the like are taken off, one layer after
the other. What remains must be a label. An answer that could mean another one as well
is not read.
"""

import re
import unicodedata
from collections.abc import Sequence

from ovd_jax.thoughts import after_thought

_LAYERS = 12  # taken off one answer, at most
_LONGEST = 2000  # characters of an answer, its thought left out
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten",
)  # fmt: skip
_QUOTES = str.maketrans("“”„‘’", '"""\'\'')
_PAIRS = ('""', "''", "()", "[]", "{}", "«»", "「」", "【】")

_BESIDE = "final|overall|step|turn|solution|my|the|total|numeric|numerical"
_KEY = (
    "score|scores|grade|rating|mark|label|answer|evaluation|verdict|judgment|judgement"
    "|note|nota|puntuación|bewertung|punktzahl|оценка|балл"
    "|分数|评分|得分|打分|答案|スコア|점수"
)
_KEYED = rf"(?:(?:{_BESIDE})[ _-]+)*(?:{_KEY})(?:\s*\([^()]*\))?\s*[:=]\s*"
_EMPHASIS = re.compile(
    r"(?<![\w`])(?P<mark>\*{1,3}|_{1,2}|`)(?=[^\s`])(?P<x>[^\n]+?)"
    r"(?<=[^\s`])(?P=mark)(?![\w`])"
)
# Each takes one layer off: what remains is the group `x`.
_LAYER = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"```(?:[a-z]+(?=[\s{\[]))?\s*(?P<x>[^`]*?)\s*```",
        r"(?P<x>.+?)\s*(?:<\|[^|<>]*\|>|</s>|<eos>|<end_of_turn>)",  # end tokens
        r"<(?P<tag>\w+)>\s*(?P<x>[^<>]*?)\s*</(?P=tag)>",
        r"\$+(?P<x>[^$]+)\$+",
        r"\\[(\[](?P<x>.+)\\[)\]]",
        r"\\(?:boxed|fbox|framebox|text|textbf|mathbf)\s*\{(?P<x>[^{}]*)\}",
        r"#+\s+(?P<x>.+)",
        rf"{_KEYED}(?P<x>.+)",
        r"(?P<x>.+?)\s*(?:points?|pts?\.?)",
        r"(?P<x>\d+)\.0+",
        r"(?P<x>.*[^.])[.!。]",
    )
]
_ENTRY = re.compile(
    r"""["']?(?P<key>[\w -]+)["']?\s*:\s*(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)'"""
    r"""|\[\s*(?P<c>[^],\[]*)\]|(?P<d>[^\s,}\]"'{[]+))"""
)
_SCORE_KEY = re.compile(rf"(?:^|[ _-])(?:{_KEY})$", re.IGNORECASE)
_REMARK = re.compile(r"(?P<x>[^\s:;,(]{1,20})(?:[:;,]|\s*\(|\s+[-–—])\s(?P<rest>\D*)")
_TIGHT = re.compile(r"(?P<x>[^\s:;,(]{1,20})\s*\((?P<rest>\D*)\)")
_FENCED = re.compile(r"(```\w*\s*[^`]*?```)\s*\n(.*)", re.DOTALL)


def read_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that a judge's answer gives; None if it gives none, or more than one.

    An explanation may follow on further lines, or stand before a line "Score: 7" at the
    end, as long as no other score is given there.
    """
    answer = after_thought(text)
    if answer is None or len(answer) > _LONGEST:
        return None
    answer = plain(answer)
    if label := _label(answer, labels):
        return label
    if fenced := _FENCED.fullmatch(answer):
        first, others = fenced[1], fenced[2].splitlines()
    else:
        first, *others = answer.splitlines() or [""]
    lines = [line.strip() for line in [first, *others] if line.strip()]
    if len(lines) < 2:
        return None
    given = [_label(line, labels) for line in lines]
    claimed = [label for label in given if label]
    keyed = re.match(_KEYED, lines[-1], re.IGNORECASE)
    if len(set(claimed)) != 1 or not (given[0] or (given[-1] and keyed)):
        return None
    label = claimed[0]
    return None if _contradicted(label, lines) else label


def plain(text: str) -> str:
    """`text` with ASCII digits, quotes and spaces, without emphasis or characters that
    are not seen."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = "".join(
        str(unicodedata.decimal(char, char))
        for char in text
        if unicodedata.category(char) not in ("Cf", "Mn", "Me")
    )
    return _EMPHASIS.sub(lambda found: found["x"], text.strip()).strip()


def _label(text: str, labels: Sequence[str]) -> str | None:
    """The label that is all of `text` but for its dress."""
    names = {label.casefold(): label for label in labels}
    for number, word in enumerate(_NUMBERS):
        if str(number) in labels:
            names.setdefault(word, str(number))
    for _ in range(_LAYERS):
        text = text.strip()
        if text.casefold() in names:
            return names[text.casefold()]
        bare = _undressed(text, labels[-1], names)
        if bare is None:
            return None
        text = bare
    return None


def _undressed(text: str, top: str, names) -> str | None:
    """`text` without its outermost layer; None where there is none. `top` is the best
    label: the only one that may stand behind "/" or "out of"."""
    if text[:1] == "{":
        return _entry(text, names)
    if text[:1] + text[-1:] in _PAIRS and len(text) > 2:
        return text[1:-1]
    for layer in _LAYER:
        if found := layer.fullmatch(text):
            return found["x"]
    scale = rf"(?P<x>.+?)\s*(?:/|out of)\s*{re.escape(top)}(?:\.0+)?"
    if found := re.fullmatch(scale, text, re.IGNORECASE):
        return found["x"]
    found = _REMARK.fullmatch(text) or _TIGHT.fullmatch(text)
    if found and names.keys().isdisjoint(re.findall(r"\w+", found["rest"].casefold())):
        return found["x"]
    return None


def _entry(text: str, names) -> str | None:
    """The score in an object such as {"score": 7}, which may have been cut."""
    entries = [
        (entry["key"].strip(), next(x for x in entry.group("a", "b", "c", "d") if x))
        for entry in _ENTRY.finditer(text)
        if any(entry.group("a", "b", "c", "d"))
    ]
    scores = {value for key, value in entries if _SCORE_KEY.search(key)}
    if not scores and len(entries) == 1 and text.endswith("}"):
        scores = {entries[0][1]}
    return scores.pop() if len(scores) == 1 else None


def _contradicted(label: str, lines: Sequence[str]) -> bool:
    """Whether a line speaks of another score than `label`."""
    claim = rf"(?:{_KEY}|actually|rather|instead|correction|or|not)\b\D{{0,20}}(\d+)"
    numbers = re.findall(claim, "\n".join(lines), re.IGNORECASE)
    return any(number != label for number in numbers) and label.isdigit()

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
_QUOTES = str.maketrans("“”„‘’∕⁄", '"""\'\'//')
_PAIRS = ('""', "''", "()", "[]", "{}", "«»", "「」", "【】")

_BESIDE = "final|overall|step|turn|solution|my|the|a|total|numeric|numerical"
_SCORE = "score|scores|grade|rating"
_SCORES = (
    f"{_SCORE}|mark|label|level|evaluation|verdict|judge?ment|note|nota|voto|puntuación"
    "|puntaje|calificación|pontuação|punteggio|bewertung|punktzahl|wertung|beoordeling"
    "|ocena|puan|skor|poäng|betyg|điểm|оценка|балл|оцінка|الدرجة|स्कोर|अंक|คะแนน"
    "|分数|評分|评分|得分|打分|評価|点数|得点|スコア|점수|평가"
)
_KEY = f"{_SCORES}|answer|result|答案|النتيجة"  # the last may be those of the problem
_IS = r"(?:[-–—](?=\s)|(?:is|of|est|ist|es|è|é)\b:?|是|为|は)"
_KEYED = (
    rf"(?:(?:{_BESIDE})[ _-]+)*(?:"
    rf"(?:{_KEY})(?:\s*\([^()]*\))?[\"'\])]?\s*(?:[-–—=]>|→|[:=|])\s*"
    rf"|(?:{_SCORES})\s*{_IS}\s*|(?:{_SCORE})\s+(?=\d))"
)
_BEFORE = (  # what a model says before it says it
    r"(?:(?:sure|certainly|of course|okay|ok|understood)[!,.]+\s+)?"
    r"(?:here(?:'s| is)\s+)?"
)
_EMPHASIS = re.compile(
    r"(?<![\w`])(?P<mark>\*{1,3}|_{1,2}|`{1,2})(?=[^\s`])(?P<x>[^\n]+?)"
    r"(?<=[^\s`])(?P=mark)(?![\w`])"
)
# Each takes one layer off: what remains is the group `x`.
_LAYER = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"(?P<fence>```|~~~)(?:[a-z]+(?=[\s{\[]))?\s*(?P<x>[^`~]*?)\s*(?P=fence)",
        r"(?P<x>.+?)\s*(?:<\|[^|<>]*\|>|</s>|<eos>|<end_of_turn>|\[/INST\])",  # ends
        r"<(?P<tag>\w+)>\s*(?P<x>[^<>]*?)\s*</(?P=tag)>",
        r"\$+(?P<x>[^$]+)\$+",
        r"\\[(\[](?P<x>.+)\\[)\]]",
        r"\\(?:boxed|fbox|framebox|text|textbf|mathbf)\s*"
        r"\{(?P<x>(?:[^{}]|\{[^{}]*\})*)\}",
        r"#+\s+(?P<x>.+)",
        r"[*•]\s+(?P<x>.+)",
        rf"(?:-|\d\.)\s+(?P<x>{_KEYED}.+)",  # an item of a list
        r"\[(?:result|score|rating)\]\s*:?\s*(?P<x>.+)",  # Prometheus
        rf"\|\s*(?P<x>{_KEYED}.+?)\s*\|",  # a row of a table
        r"(?:assistant|judge|response|output)\s*[:\n]\s*(?P<x>.+)",
        rf"{_BEFORE}{_KEYED}(?P<x>(?!\s*\d\.\s).+)",
        r"(?:sure|certainly|okay|ok)[!.,]+\s+(?P<x>\S+)",
        r"(?P<x>.+?)\s*(?:points?|pts?\.?|分|点|점|です)",
        r"(?P<x>\d+)\.0+",
        r"(?P<x>.*[^.])[.!。]",
    )
]
_ENTRY = re.compile(
    r"""["']?(?P<key>[\w -]+)["']?\s*:\s*(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)'"""
    r"""|\[\s*(?P<c>[^],\[]*)\]|(?P<d>[^\s,}\]"'{[]+))"""
)
_SCORE_KEY = re.compile(rf"(?:^|[ _-])(?:{_KEY})$", re.IGNORECASE)
_ONLY_KEY = re.compile(  # of an object that holds nothing else
    r"(?:value|output|response|points|number|digit|final|total|quality|correctness|s)",
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"(?P<x>[^\s:;,(]{1,20})(?:[:;,]|\s*\(|\s+(?:[-–—=|→]|->))\s(?P<rest>\D*)"
)
_TIGHT = re.compile(r"(?P<x>[^\s:;,(]{1,20})\s*\((?P<rest>\D*)\)")
_TWICE = re.compile(r"(?P<x>\w{1,9})\s*\((?P<again>\w{1,9})\)")  # 7 (seven)
_LAST = re.compile(  # a sentence or two, and then the score
    rf"[^\d\n]{{1,300}}[.!,;。]\s+(?:so\s+)?(?P<x>{_KEYED}[^\n]+)", re.IGNORECASE
)
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
    if (last := _LAST.fullmatch(answer)) and (label := _label(last["x"], labels)):
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
    # A bare number at the end may be a last result, where there are others.
    last = re.match(_KEYED, lines[-1], re.IGNORECASE) or not any(
        re.search(r"\d", line) for line in lines[:-1]
    )
    if len(set(claimed)) != 1 or not (given[0] or (given[-1] and last)):
        return None
    label = claimed[0]
    return None if _contradicted(label, lines) else label


def plain(text: str) -> str:
    """`text` with ASCII digits, quotes and spaces, without emphasis or characters that
    are not seen."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = "".join(
        str(unicodedata.digit(char, char)) for char in text if not _is_unseen(char)
    ).strip()
    return _EMPHASIS.sub(lambda found: found["x"], text).strip()


def _is_unseen(char: str) -> bool:
    """Whether a character is no part of the text: joiners, keycaps, emoji, ..."""
    kind = unicodedata.category(char)
    return (
        kind in ("Cf", "Me")
        or (kind == "Cc" and not char.isspace())
        or (kind == "So" and char > "\u2190")
        or "\ufe00" <= char <= "\ufe0f"
    )


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
    word = _NUMBERS[int(top)] if top.isdecimal() and int(top) < 11 else top
    scale = (
        rf"(?:/|(?:out\s)?of|von|sur|de|из|su)\s*(?:{re.escape(top)}(?:\.0+)?|{word})"
    )
    whole = rf"(?P<x>.+?)\s*(?:{scale}|\(\s*{scale}\s*\))"
    if found := re.fullmatch(whole, text, re.IGNORECASE):
        return found["x"]
    claim = _ENTRY.fullmatch(text)
    if claim and re.fullmatch(rf"\D*{_SCORE_KEY.pattern}", claim["key"].strip(), re.I):
        return next((x for x in claim.group("a", "b", "c", "d") if x), None)
    if (twice := _TWICE.fullmatch(text)) and _same(twice[1], twice[2], names):
        return twice["x"]
    found = _REMARK.fullmatch(text) or _TIGHT.fullmatch(text)
    if found and names.keys().isdisjoint(re.findall(r"\w+", found["rest"].casefold())):
        return found["x"]
    return None


def _same(one: str, other: str, names) -> bool:
    """Whether both are the same label."""
    labels = [names.get(text.casefold()) for text in (one, other)]
    return labels[0] is not None and labels[0] == labels[1]


def _entry(text: str, names) -> str | None:
    """The score in an object such as {"score": 7}, which may have been cut."""
    entries = [
        (entry["key"].strip(), next(x for x in entry.group("a", "b", "c", "d") if x))
        for entry in _ENTRY.finditer(text)
        if any(entry.group("a", "b", "c", "d"))
    ]
    scores = {value for key, value in entries if _SCORE_KEY.search(key)}
    only = len(entries) == 1 and _ONLY_KEY.fullmatch(entries[0][0])
    if not scores and only and text.endswith("}"):
        scores = {entries[0][1]}
    return scores.pop() if len(scores) == 1 else None


def _contradicted(label: str, lines: Sequence[str]) -> bool:
    """Whether a line speaks of another score than `label`."""
    claim = rf"(?:{_KEY}|actually|rather|instead|correction|or|not)\b\D{{0,20}}(\d+)"
    numbers = re.findall(claim, "\n".join(lines), re.IGNORECASE)
    return any(number != label for number in numbers) and label.isdigit()

"""Sentences in which a text gives itself a score: a judge is not to read them.

A sentence is one if it holds a number on the judge's scale, a word that makes it a
score, and nothing but words of such sentences: an honest step nearly always holds
another. Where the question itself is about scores, only what says that a judge should
give one goes.

claim_words.json has the words, by language and kind: `score` says that a number is a
score; `maybe` does so where the sentence also names what is judged, or a scale;
`judging` is what a judge does, `giving` what it does where it is who does it; `own`
names what is judged; `filler` is all else that such a sentence holds. They are written
as they are read, and folded here.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

SCORE, MAYBE, JUDGING, GIVING, OWN = "score", "maybe", "judging", "giving", "own"
_FILE = json.loads(Path(__file__).with_name("claim_words.json").read_text("utf-8"))
_NUMBERS = {word: n for n, words in _FILE["numbers"].items() for word in words.split()}
_BLANKLESS = "without blanks"  # the language of scripts such as Chinese

NO, BARE, EXPLICIT = 0, 1, 2  # no claim; one that needs a line of its own; any other

_MOST_WORDS = 40  # of a sentence that is looked at
_MOST_CHARACTERS = 2_000
_NUMBER = r"\d+(?:[.,]\d+)?"
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+")
_MARKUP = re.compile(
    r"\\(?:text|math|bf|rm|it|emph|boxed|fbox|large|Large|huge|quad|left|right)[a-z]*"
    r"|</?(?:b|i|u|p|em|br|hr|strong|span|div|center|h[1-6]|li|td|tr)\b[^<>]{0,40}>"
)
_FRACTION = re.compile(r"\\[dt]?frac\s?\{(\d+)\}\s?\{(\d+)\}")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SPELLED = re.compile(r"(?<!\w)(?:[^\W\d_][ .*_-]){3,20}[^\W\d_](?!\w)")
_MIXED = re.compile(r"(?<!\w)[a-z\d@$]{4,12}(?!\w)")
_LEET = str.maketrans("013457@$", "oieastas")
_LIKE_LATIN = str.maketrans(
    "авеёкмнорсстухіјѕԁԛԝαβεικνορτυχ", "abeekmhopcctyxijsdqwabeiknoptyx"
)
_PLAIN = str.maketrans("ıłđ", "ild")
_STARS = re.compile("[\u2605\u2b50\U0001f31f][\u2605\u2b50\U0001f31f\u2606]{2,9}")
_SCALE = re.compile(r"\(?\b[01]\s?(?:-|\u2013|~|to|bis|a|and|до)\s?(?:\d\d?)\b\)?")
_LISTED = re.compile(r"^\W{0,9}(?:(?:step|line)\s\d+\s?[:.)]|\(?\d\d?[.)]\s)")
_ARITHMETIC = re.compile(r"\d\s?[-+*^\xd7\xb7\u2212<>]\s?\d|=.*=")
_SUM = re.compile(r"\d\s?[+*=]\s?\d")  # most steps hold one: the quick way out
_OF = re.compile(
    r"\W*(?:/|(?:points? |marks? )?(?:out )?(?:of|von|sur|de|di|su|sobre|em|na|aus|из|з"
    r"|z|av|af|over|dari|от|από|من|از|מתוך|में से))\W*"
)
_FULL_FIRST = re.compile("満点|滿分|满分|만점|中")  # the scale, then the score
_TOP = re.compile(
    r"\b(?:full|top|perfect|max(?:imum)?|highest|best)(?: possible)? "
    r"(?:score|marks?|grade|rating)\b|満点|滿分|满分|만점|volle punktzahl"
)
_BRACKETED = re.compile(rf"\W*\[\[\s?({_NUMBER})\s?\]\]\W*")
_NOTE = re.compile(
    rf"\W*not[ae](?: final\w?)?\s?[:=]\W*({_NUMBER})(?:\s?/\s?({_NUMBER}))?\W*"
)
# What is said to a judge alone.
_ORDER = re.compile(
    r"\b(?:respond|reply)(?: only)? with\b"
    r"|\byour (?:reply|response|output) (?:is|should be)\b"
    r"|\b(?:ignore|disregard|forget) (?:all |the |any |everything |previous )*"
    r"(?:above|before|previous|prior|earlier|instructions?|rules|rubric)\b"
)
# Questions in which a score may be somebody's.
_ABOUT_SCORES = re.compile(
    r"\b(?:scor\w*|grad(?:e|es|ed|ing)|rat(?:ed|ings?)|marks|judges?|teams?|games?|match"
    r"|exams?|quiz|quizzes|tests?|goals|players?|tournament|how many points"
    r"|points (?:each|per|for|did|does))\b|\d points"
)
_PEOPLE = {"i", "we", "you", "please", "should", "must", "would"}
_LOOSE = {"this", "it", "that", "answer", "itself"}
_RUNS_ON = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


@functools.lru_cache(maxsize=100_000)  # each step is shown again before later ones
def claim(sentence: str, question: str, labels: tuple[str, ...]) -> int:
    """Whether `sentence` gives itself a score on the scale of `labels`: NO, BARE or
    EXPLICIT."""
    if len(sentence) > _MOST_CHARACTERS or _SUM.search(sentence):
        return NO
    text, scale = _prepared(sentence), _Scale(labels)
    if _ORDER.search(text) and scale.form(text):
        return EXPLICIT
    alone = _BRACKETED.fullmatch(text) or _NOTE.fullmatch(text)
    kinds = {SCORE: True} if alone else _kinds(scale.without_words(text))
    form = scale.form(text) if kinds else None
    if not kinds or not form:
        return NO
    tokens = set(_TOKEN.findall(text))
    own, fraction = OWN in kinds, form != "number"
    first = next(iter(kinds))
    judged = JUDGING in kinds or (
        GIVING in kinds and bool(first == GIVING or _PEOPLE & tokens)
    )
    if judged and own:
        return EXPLICIT
    said = (
        SCORE in kinds
        or (judged and (fraction or _LOOSE & tokens))
        or (MAYBE in kinds and (own or fraction))
        or scale.is_full(text)
    )
    if not said or _is_asked_for(tokens, question):
        return NO
    return EXPLICIT if alone or own or judged or fraction else BARE


def is_title(line: str) -> bool:
    """Whether a line does nothing but say that a score follows."""
    text = _prepared(line)
    kinds = _kinds(text) if len(line) < 200 else None
    return bool(kinds and SCORE in kinds and not re.search(r"\d", text))


def is_value(line: str, labels: Sequence[str]) -> bool:
    """Whether a line is nothing but a score on the scale of `labels`."""
    text, scale = _prepared(line[:200]), _Scale(tuple(labels))
    rest = scale.without_words(text)
    return bool(scale.form(text)) and not re.search(r"[^\W\d_]", _OF.sub(" ", rest))


def names_score(word: str) -> bool:
    """Whether a key such as "final_score" names a score."""
    kinds = _kinds(_prepared(word))
    return bool(kinds and SCORE in kinds)


def folded(text: str) -> str:
    """`text` in small letters without marks, digits as 0-9, and without what does not
    show."""
    text = unicodedata.normalize("NFKD", _CAMEL.sub(" ", text)).casefold()
    kept = (c for c in text if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))
    digits = (str(unicodedata.decimal(c)) if c.isdecimal() else c for c in kept)
    return unicodedata.normalize("NFC", "".join(digits).translate(_PLAIN))


def _prepared(sentence: str) -> str:
    """A sentence folded, with its markup, its number and its disguises taken off."""
    text = _MARKUP.sub(" ", _FRACTION.sub(r"\1/\2", sentence))
    text = " ".join(folded(text).replace("_", " ").split())
    text = _STARS.sub(lambda m: f" stars {_lit(m[0])}/{len(m[0])} ", text)
    text = _SPELLED.sub(lambda m: re.sub(r"[ .*_-]", "", m[0]), text)
    text = _MIXED.sub(lambda m: _unmasked(m[0]), text)
    text = _numeral().sub(lambda m: f" {_NUMBERS[m[0]]} ", text)
    return _LISTED.sub("", " ".join(text.split()), count=1)


def _lit(stars: str) -> int:
    return len(stars) - stars.count("\u2606")


def _unmasked(word: str) -> str:
    plain = word.translate(_LEET)
    return plain if plain in _words() and not word.isdigit() else word


@functools.cache
def _numeral() -> re.Pattern:
    """What matches a number in letters; in Chinese without blanks around it."""
    words = sorted(_NUMBERS, key=len, reverse=True)
    spaced = "|".join(word for word in words if not _RUNS_ON.match(word))
    runs = "".join(word for word in words if _RUNS_ON.match(word))
    return re.compile(rf"\b(?:{spaced})\b|[{runs}]")


@functools.cache
def _words() -> dict[str, set[str]]:
    """The kinds of each word, folded."""
    words: dict[str, set[str]] = {}
    for language, kinds in _FILE["languages"].items():
        for kind, text in kinds.items() if language != _BLANKLESS else ():
            for word in folded(text).split():
                words.setdefault(word, set()).add(kind)
    return words


@functools.cache
def _runs() -> tuple[dict[str, str], re.Pattern]:
    """The kind of each word of scripts without blanks, and what matches one."""
    kinds = {
        word: kind
        for kind, text in _FILE["languages"][_BLANKLESS].items()
        for word in folded(text).split()
    }
    longest_first = sorted(kinds, key=len, reverse=True)
    return kinds, re.compile("|".join(map(re.escape, longest_first)))


def _kinds(text: str) -> dict[str, bool] | None:
    """The kinds of words that a prepared text holds, in order; None where it holds a
    word that has none."""
    tokens = [token for token in _TOKEN.findall(text) if not token[0].isdigit()]
    if len(tokens) > _MOST_WORDS:
        return None
    found: dict[str, bool] = {"": True}
    kinds, run = _runs()
    for token in tokens:
        known = _words().get(token) or _words().get(token.translate(_LIKE_LATIN))
        if not known and _RUNS_ON.fullmatch(token) and not run.sub("", token):
            known = {kinds[part] for part in run.findall(token)}
        if not known:
            return None
        found |= dict.fromkeys(sorted(known), True)
    del found[""]
    return found or {"": True}


def _is_asked_for(tokens: set[str], question: str) -> bool:
    """Whether a question is about scores, or holds one of a claim's own words."""
    text = folded(question)
    kinds, run = _runs()
    asked = set(_TOKEN.findall(text)).union(run.findall(text))
    told = tokens.union(*(run.findall(token) for token in tokens))
    weighty = {SCORE, MAYBE, GIVING, JUDGING}
    words = _words()
    shared = (
        weighty & (words.get(word, set()) | {kinds.get(word, "")})
        for word in told & asked
    )
    return bool(_ABOUT_SCORES.search(text)) or any(shared)


class _Scale:
    """The labels of a judge as a scale, and how a sentence may state a score on it."""

    def __init__(self, labels: tuple[str, ...]):
        self._words = [folded(label) for label in labels if not label.isdigit()]
        numbers = [int(label) for label in labels if label.isdigit()] or [0, 9]
        self._low, self._high = min(numbers), max(numbers)
        self._tops = {self._high, len(labels), 5, 10, 100}

    def without_words(self, text: str) -> str:
        """A prepared text without the labels that are words."""
        for word in self._words:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", " ", text)
        return text

    def form(self, text: str) -> str:
        """How a prepared text states a score: as a `number` or a label, as a `fraction`
        of a scale, as its `top`; empty where it states none."""
        text = _SCALE.sub(" ", text)
        if _ARITHMETIC.search(text):
            return ""
        numbers = list(self._numbers(text))
        if not numbers:
            named = self.without_words(text) != text
            return "top" if _TOP.search(text) else "number" * named
        if len(numbers) == 1:
            (value,) = (float(match[0].replace(",", ".")) for match in numbers)
            if re.match(r"\s?%", text[numbers[0].end() :]):
                return "fraction" * (value <= 100)
            return "number" * (self._low <= value <= self._high)
        return "fraction" if self._fraction(text) else ""

    def is_full(self, text: str) -> bool:
        """Whether a text is, with nothing that says so, a full score."""
        value, of = self._fraction(text) or (0, 1)
        return value == of and of in self._tops and "=" not in text

    def _numbers(self, text: str) -> Iterator[re.Match]:
        return re.finditer(_NUMBER, text)

    def _fraction(self, text: str) -> tuple[float, float] | None:
        """(score, full score) of two numbers that are one over the other."""
        numbers = list(self._numbers(text))
        if len(numbers) != 2 or _ARITHMETIC.search(text):
            return None
        value, of = (float(match[0].replace(",", ".")) for match in numbers)
        between = text[numbers[0].end() : numbers[1].start()]
        if _FULL_FIRST.search(between):
            value, of = of, value
        elif not _OF.fullmatch(between):
            return None
        return (
            (value, of) if value <= of and (of in self._tops or value == of) else None
        )

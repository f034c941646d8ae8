"""The words of a text, as BM25 counts them."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator

# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, Tibetan, Chinese
# characters, Japanese syllables. Hangul has spaces.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f"
    "\u30a0-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
# Combining marks, such as the vowels of Devanagari, belong to the letter before them,
# though `\\w` leaves them out.
_SIGN = re.compile(r"[^\w\s\x00-\x7f]")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\ufeff"))
_ACCENTED = re.compile("LATIN|GREEK|CYRILLIC")
_STOPWORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into",
    "is", "it", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then",
    "there", "these", "they", "this", "to", "was", "will", "with",
})  # fmt: skip


def words_of(text: str) -> Iterator[str]:
    """The words that count, in lower case, without accents in Latin, Greek and
    Cyrillic; where a script has no spaces, each two neighbouring characters."""
    text, marks = text.lower(), ""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
        signs = set(_SIGN.findall(text))
        marks = "".join(sign for sign in signs if unicodedata.category(sign)[0] == "M")
    for word in re.findall(rf"[\w{marks}]+", text):
        for part in (word,) if word.isascii() else _parts(word):
            if part not in _STOPWORDS:
                yield part


@functools.lru_cache(maxsize=100_000)
def _parts(word: str) -> tuple[str, ...]:
    """A word without accents, or the pairs of characters of one in an unspaced
    script."""
    parts, start = [], 0
    for run in _RUN.finditer(word):
        if run.start() > start:
            parts.append(_bare(word[start : run.start()]))
        parts += _pairs(run[0])
        start = run.end()
    return (*parts, _bare(word[start:])) if start < len(word) else tuple(parts)


def _pairs(run: str) -> Iterator[str]:
    """Each two neighbouring characters, marks with theirs; a single one alone."""
    letters: list[str] = []
    for character in run:
        if letters and unicodedata.category(character)[0] == "M":
            letters[-1] += character
        else:
            letters.append(character)
    if len(letters) == 1:
        yield letters[0]
    for first, second in itertools.pairwise(letters):
        yield first + second


def _bare(word: str) -> str:
    """A word without the accents of its Latin, Greek and Cyrillic letters."""
    kept, base_accented = [], False
    for character in unicodedata.normalize("NFD", word):
        if not unicodedata.combining(character):
            name = unicodedata.name(character, "")
            base_accented = bool(_ACCENTED.match(name))
        elif base_accented:
            continue
        kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept))

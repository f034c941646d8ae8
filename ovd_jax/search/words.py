"""The words of a text, as BM25 counts them."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator

# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, Tibetan, Chinese
# characters, Japanese syllables.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f"
    "\u30a0-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
# Korean has spaces, but puts its particles behind a noun without one.
_HANGUL = re.compile("[\uac00-\ud7a3]{3,}")
# Characters that mostly are words of their own, as syllables and letters are not.
_CHINESE = re.compile(
    "[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)
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


def words_of(text: str, *, indexed: bool = False) -> Iterator[str]:
    """The words that count, in lower case, without accents in Latin, Greek and
    Cyrillic; where a script has no spaces, each two neighbouring characters, and these
    beside the word in Korean.

    A Chinese character counts alone too. In a text that is `indexed` all characters of
    those scripts do, so that a query of a single one finds it.
    """
    text, marks = text.lower(), ""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
        signs = set(_SIGN.findall(text))
        marks = "".join(sign for sign in signs if unicodedata.category(sign)[0] == "M")
    for word in re.findall(rf"[\w{marks}]+", text):
        for part in (word,) if word.isascii() else _parts(word, indexed):
            if part not in _STOPWORDS:
                yield part
                if _HANGUL.fullmatch(part):
                    yield from map("".join, itertools.pairwise(part))


@functools.lru_cache(maxsize=100_000)
def _parts(word: str, indexed: bool) -> tuple[str, ...]:
    """A word without accents, or the characters of one in an unspaced script."""
    parts, start = [], 0
    for run in _RUN.finditer(word):
        if run.start() > start:
            parts.append(_bare(word[start : run.start()]))
        parts += _pairs(run[0], indexed)
        start = run.end()
    return (*parts, _bare(word[start:])) if start < len(word) else tuple(parts)


def _pairs(run: str, indexed: bool) -> list[str]:
    """Each two neighbouring characters, marks with theirs; then those that count
    alone, as the only one does."""
    letters: list[str] = []
    for character in run:
        if letters and unicodedata.category(character)[0] == "M":
            letters[-1] += character
        else:
            letters.append(character)
    pairs = [first + second for first, second in itertools.pairwise(letters)]
    every = indexed or not pairs
    return pairs + [each for each in letters if every or _CHINESE.match(each)]


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

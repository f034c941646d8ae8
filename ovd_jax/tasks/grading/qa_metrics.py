"""How an answer in free words compares with the gold ones, and documents with both.

Texts are compared as in SQuAD (arXiv:1606.05250): lower case, without ASCII
punctuation and English articles, blanks joined. Of several golds the best one counts.
"""

import collections
import re
import string
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MAX_ANSWER = 2_000  # characters; more than any answer needs


def normalize(text: str) -> str:
    """`text` as answers are compared."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str | None, golds: Iterable[str]) -> float:
    """1.0 if the normalized answer is a normalized gold (strict EM), else 0.0."""
    return float(answer is not None and normalize(answer) in map(normalize, golds))


def cover_match(answer: str | None, golds: Iterable[str]) -> float:
    """1.0 if the answer holds a gold as whole words (cover EM), else 0.0."""
    return float(answer is not None and holds(answer, golds))


def holds(text: str, golds: Iterable[str]) -> bool:
    """Whether the words of some gold stand in `text`, in order and side by side."""
    words = f" {normalize(text)} "
    return any(bare and f" {bare} " in words for bare in map(normalize, golds))


def f1(answer: str | None, golds: Iterable[str]) -> float:
    """The best F1 of the answer's words, as a multiset, over the golds."""
    if answer is None:
        return 0.0
    words = normalize(answer[:_MAX_ANSWER]).split()
    return max((_f1(words, normalize(gold).split()) for gold in golds), default=0.0)


def _f1(words: list[str], gold: list[str]) -> float:
    if not words or not gold:  # as in SQuAD 2.0
        return float(words == gold)
    common = (collections.Counter(words) & collections.Counter(gold)).total()
    return 2 * common / (len(words) + len(gold))


def retrieval_recall(documents: Iterable[str], golds: Iterable[str]) -> float:
    """1.0 if a document holds a gold, else 0.0; a ceiling for who only reads them."""
    golds = tuple(golds)
    return float(any(holds(document, golds) for document in documents))

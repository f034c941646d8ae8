"""BM25 over a local corpus, by `bm25s`.

The index is built once for each corpus in a cache folder and memory-mapped: processes
share it, and only the used part is resident.
"""

import array
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.files import sync_folder, sync_tree
from ovd_jax.paths import writable
from ovd_jax.search.base import Document, Query
from ovd_jax.search.corpus import Corpus, digest, passages
from ovd_jax.search.words import words_of


@contextlib.contextmanager
def _without_jax() -> Iterator[None]:
    """Makes `import jax` fail: bm25s would occupy a device for a top-k that this module
    computes itself."""
    hidden = {name: sys.modules.get(name) for name in ("jax", "jax.lax")}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[call-overload]  # None hides
    try:
        yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


with _without_jax():
    import bm25s

_log = logging.getLogger(__name__)
K1, B = 0.9, 0.4  # as Anserini's for passages
_FORM = "5"  # of the index; another one is built where it changes
_MAX_QUERY = 64  # words


class Bm25:
    """The best `topk` passages of the JSONL file `corpus` by their words.

    `cache` holds the index, in a folder named by the corpus' content. Raises UserError
    for a file that is not a corpus.
    """

    draws = False

    def __init__(self, corpus: str | Path, *, topk: int, cache: Path):
        path = Path(corpus)
        if not path.is_file():
            raise UserError(
                f"search.corpus {str(corpus)!r} is no file; pass the path of a JSONL "
                "file with id, title and text, or id and contents, on each line."
            )
        found = digest(path, _FORM, str(K1), str(B), bm25s.__version__)
        folder = cache / found
        if not folder.is_dir():
            folder = writable(cache) / found
        if not folder.is_dir():
            build(path, folder)
        self.identity = {"engine": "bm25", "index": found, "topk": topk}
        self._topk = topk
        try:
            self._index, offsets = load(folder)
        except Exception as error:  # bm25s and NumPy raise many types
            _log.warning(
                "The index %s is broken (%s); it is built anew.", folder, error
            )
            folder = writable(cache) / found
            shutil.rmtree(folder, ignore_errors=True)
            build(path, folder)
            self._index, offsets = load(folder)
        self._corpus = Corpus(path, offsets)

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, number: int) -> Document:
        return self._corpus[number]

    def by_id(self) -> dict[str, Document]:
        """All passages by id; the first of equal ids."""
        passages: dict[str, Document] = {}
        for number in range(len(self)):
            passages.setdefault(self[number].id, self[number])
        return passages

    def find(
        self, queries: Sequence[Query], seeds: Sequence[int]
    ) -> list[tuple[Document, ...]]:
        """The best passages; the seed is not used."""
        return [self.best(query.text, self._topk) for query in queries]

    def best(self, text: str, topk: int) -> tuple[Document, ...]:
        """The `topk` passages with at least one word of `text`."""
        words = list(dict.fromkeys(words_of(text)))[:_MAX_QUERY]
        ids = self._index.get_tokens_ids(words)
        if not ids:
            return ()
        scores = self._index.get_scores_from_ids(ids)
        found = []
        for number in highest(scores, topk):
            document = self._corpus[int(number)]
            score = float(scores[number])
            found.append(Document(document.title, document.text, document.id, score))
        return tuple(found)


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest scores over 0; the first of equal ones."""
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= max(least, np.finfo(scores.dtype).tiny))
    else:
        places = np.flatnonzero(scores > 0)
    return places[np.argsort(-scores[places], kind="stable")][:count]


def load(folder: Path) -> tuple[bm25s.BM25, np.ndarray]:
    """An index, and where its passages are in their file."""
    index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
    return index, np.load(folder / "offsets.npy", mmap_mode="r")


def build(path: Path, folder: Path) -> None:
    """Writes the index of a corpus atomically."""
    vocabulary: dict[str, int] = {}
    texts, offsets = [], [0]
    for start, end, document in passages(path):
        offsets[-1] = start
        ids = array.array("i")  # a seventh of a list's bytes
        for word in words_of(f"{document.title} {document.text}", indexed=True):
            ids.append(vocabulary.setdefault(word, len(vocabulary)))
        texts.append(ids)
        offsets.append(end)
    if not vocabulary:
        raise UserError(f"{path} has no words; write a passage on each line.")
    index = bm25s.BM25(k1=K1, b=B)
    index.index((texts, vocabulary), show_progress=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
    try:
        index.save(making, show_progress=False)
        np.save(making / "offsets.npy", np.asarray(offsets, np.int64))
        sync_tree(making)  # what lies under the name of a corpus is never looked at
        os.replace(making, folder)
        sync_folder(folder.parent)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)

"""Passages in a JSONL file, read through the page cache one at a time."""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.files import whole_file
from ovd_jax.search.base import Document


class Corpus:
    """Passages by number: rows of `id`, `title` and `text`. Blank lines count.

    `offsets` says where each line begins, and the file's size at its end.
    """

    def __init__(self, path: Path, offsets: np.ndarray):
        self._file = open(path, "rb")  # noqa: SIM115 mapped for as long as this lives
        self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._offsets = offsets
        self._path = path

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> Document:
        start, end = self._offsets[number], self._offsets[number + 1]
        return passage(self._bytes[start:end], f"{self._path}:{number + 1}")


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends."""
    with open(path, "rb") as file:
        yield from file


def passage(line: bytes, where: str) -> Document:
    """The passage on a line; `where` is what an error names."""
    try:
        row = json.loads(line)
        texts = {key: row[key] for key in ("id", "title", "text")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{where} is no passage ({error!r}); a corpus has a JSON object with the "
            "texts id, title and text on each line."
        ) from None
    wrong = [key for key, text in texts.items() if not isinstance(text, str)]
    if wrong:
        raise UserError(f"{where}: {', '.join(wrong)} must be a text.")
    return Document(**texts)


def digest(path: Path, *more: str) -> str:
    """Of a file's content and `more`."""
    with open(path, "rb") as file:
        hashed = hashlib.file_digest(file, "blake2b")
    hashed.update(repr(more).encode())
    return hashed.hexdigest()[:32]


def write_corpus(documents: Iterable[Document], folder: Path) -> Path:
    """A JSONL file in `folder` of these passages, named for what it holds."""
    rows = [{"id": d.id, "title": d.title, "text": d.text} for d in documents]
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path = folder / f"{hashlib.blake2b(text, digest_size=16).hexdigest()}.jsonl"
    if not path.is_file():
        with whole_file(path) as file:
            file.write(text)
    return path

"""Passages of a JSONL file, read one at a time through the page cache."""

import hashlib
import json
import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.files import whole_file
from ovd_jax.jsonl import as_text, parse_row, read_lines
from ovd_jax.paths import writable
from ovd_jax.search.base import Document

_LONE = re.compile("[\ud800-\udfff]")


class Corpus:
    """Passages by number, blank lines left out.

    `offsets` has the start of each passage and the file's size.
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
        return passage(self._bytes[start:end], f"{self._path}, passage {number + 1}")


def passages(path: Path) -> Iterator[tuple[int, int, Document]]:
    """(start, end, passage) of each line that is not blank, in bytes."""
    start = 0
    for number, line in read_lines(path):
        end = start + len(line)
        if line.strip():
            yield start, end, passage(line, f"{path}:{number}")
        start = end


def passage(line: bytes, where: str) -> Document:
    """The passage on a line: `id`, `title` and `text`, or `contents` with the title in
    its first line, as in wiki-18. Raises UserError naming `where` for anything else."""
    row = parse_row(line, where)
    name = next((row[key] for key in ("id", "_id", "docid") if key in row), None)
    title, text = row.get("title") or "", row.get("text")
    if text is None and isinstance(row.get("contents"), str):
        head, line_end, text = row["contents"].partition("\n")
        if title or not line_end:
            text = row["contents"]
        else:
            title = head.strip().strip('"')
    texts = {"id": as_text(name), "title": as_text(title), "text": text}
    if wrong := [key for key, value in texts.items() if not isinstance(value, str)]:
        raise UserError(
            f"{where} is no passage: {', '.join(wrong)} must be a text; a corpus has a "
            "JSON object with id, title and text, or id and contents, on each line."
        )
    # JSON can escape half of a surrogate pair, which no server can send on.
    name, title, text = (_LONE.sub("\ufffd", value) for value in texts.values())
    return Document(id=name, title=title, text=text)


def digest(path: Path, *more: str) -> str:
    """A digest of a file's content and of `more`."""
    with open(path, "rb") as file:
        hashed = hashlib.file_digest(file, "blake2b")
    hashed.update(repr(more).encode())
    return hashed.hexdigest()[:32]


def write_corpus(documents: Iterable[Document], folder: Path) -> Path:
    """A JSONL file of these passages in `folder`, named by its content."""
    rows = [{"id": d.id, "title": d.title, "text": d.text} for d in documents]
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    name = f"{hashlib.blake2b(text, digest_size=16).hexdigest()}.jsonl"
    path = folder / name
    if not path.is_file():
        path = writable(folder) / name
        with whole_file(path) as file:
            file.write(text)
    return path

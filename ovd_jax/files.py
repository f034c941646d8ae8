"""Files of a run: written atomically and durably, and never through a symbolic link in
its folder."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ovd_jax.errors import UserError

_WRITTEN = ("ahead", "checkpoints", "export")  # folders that a run writes into


def refuse_links(folder: str | Path) -> None:
    """Raises UserError if a run's folder contains a symbolic link, through which the
    run would write elsewhere. The folder itself may be one."""
    folder = Path(folder)
    inside = [folder, *(folder / name for name in _WRITTEN)]
    for path in (
        path for place in inside if place.is_dir() for path in place.iterdir()
    ):
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link, and a run writes to its own folder alone: "
                "remove it, or name another run_dir."
            )


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` at the end of the block and is on the disk then; if
    the block raises, or the process ends, `path` is unchanged."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # follows no link
    try:
        with os.fdopen(os.open(copy, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(copy, path)
        sync_folder(path.parent)
    finally:
        copy.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text with `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def open_rows_file(path: str | Path) -> BinaryIO:
    """Opens a file to read and append, and creates it if needed. Raises UserError for a
    symbolic link."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(path, flags, 0o666), "rb+")
    except OSError as error:
        if Path(path).is_symlink():
            raise UserError(f"{path} is a symbolic link; remove it.") from error
        raise


def sync_folder(folder: str | Path) -> None:
    """Flushes a folder's list of files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flushes all files in a folder, and the folder, to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)  # a file's descriptor may be one for reading, too

"""Model folders on disk: replaced atomically, with the files beside the weights."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ovd_jax.errors import UserError
from ovd_jax.files import sync_folder, sync_tree

_COMPANIONS = (  # what a model needs besides config.json and weights
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_TEMPLATES = "additional_chat_templates"  # a folder


def is_model_folder(folder: str | Path) -> bool:
    """True if `folder` holds a model."""
    folder = Path(folder)
    weights = ("model.safetensors", "model.safetensors.index.json")
    return (folder / "config.json").is_file() and any(
        (folder / name).is_file() for name in weights
    )


def fingerprint(folder: str | Path) -> str:
    """A digest of everything that decides a model's answers: config, weights, tokenizer
    and templates."""
    folder = Path(folder)
    names = ("config.json", *_COMPANIONS)
    paths = [*(folder / name for name in names), *folder.glob("*.safetensors")]
    paths += (folder / _TEMPLATES).glob("*")
    paths = sorted(path for path in paths if path.is_file())

    def digest(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()

    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        parts = [
            (str(path.relative_to(folder)), found)
            for path, found in zip(paths, pool.map(digest, paths), strict=True)
        ]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def check_replaceable(folder: Path) -> None:
    """Raises UserError if writing `folder` would destroy anything but a model."""
    if not folder.exists() or is_model_folder(folder):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(
            f"{folder} exists and is no model folder; it is left alone. Name a new one."
        )


@contextlib.contextmanager
def replaced(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` after the block.

    It is renamed once it is on the disk, so `folder` is never incomplete. A model in
    `folder` is replaced; raises UserError for anything else.
    """
    folder = Path(folder).resolve()
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", dir=folder.parent
    ) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        sync_tree(new)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
        sync_folder(folder.parent)


def copy_companions(source: Path, folder: Path) -> None:
    """Copies tokenizer, chat templates and generation settings, byte for byte."""
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, folder / _TEMPLATES)

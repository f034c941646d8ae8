"""Model folders on disk: replaced whole, and what is in them beside the weights."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
_PROBES, _PROBE_BYTES = 1024, 4096  # read of each file of weights


def is_model_folder(folder: str | Path) -> bool:
    """Whether `folder` holds a model; `replaced` leaves all of it or none."""
    folder = Path(folder)
    weights = ("model.safetensors", "model.safetensors.index.json")
    return (folder / "config.json").is_file() and any(
        (folder / name).is_file() for name in weights
    )


def fingerprint(folder: str | Path) -> str:
    """A digest of the model in `folder`: of its config, and of the sizes, beginnings
    and pieces from all over of its files of weights.

    Weights that have been trained on show; a few numbers changed by hand may not.
    """
    digest = hashlib.sha256((Path(folder) / "config.json").read_bytes())
    for path in sorted(Path(folder).glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for index in range(_PROBES):
                file.seek(index * max(size // _PROBES, _PROBE_BYTES))
                digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()


def check_replaceable(folder: Path) -> None:
    """Raises ValueError if writing `folder` would destroy what is not a model."""
    if not folder.exists() or is_model_folder(folder):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ValueError(
            f"{folder} exists and is no model folder; it is left alone. Name a new one."
        )


@contextlib.contextmanager
def replaced(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write into, which is `folder` after the block.

    It lies beside `folder` and is renamed, so `folder` is never half there. A model in
    `folder` is replaced; raises ValueError rather than replace anything else.
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
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def copy_companions(source: Path, folder: Path) -> None:
    """Copies tokenizer, chat templates and generation settings, byte for byte."""
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, folder / _TEMPLATES)

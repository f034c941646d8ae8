"""Safetensors files: tensors read in slices, and written one by one in shards.

The format is the length of a JSON header in eight bytes, the header, then the bytes of
every tensor (https://huggingface.co/docs/safetensors).
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_object
from ovd_jax.models.hf_config import REMEDY

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_COMPUTED = "inv_freq"  # in old files; models compute it
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


class Tensors:
    """The tensors of a model folder, by name, in their stored dtype.

    A file is open only during a read: touched pages of a mapped file count as memory of
    the process until it is closed.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._stored = {}  # name: (file, shape, code of the dtype)
        files, homes = _weight_files(self.folder)
        for path in files:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 (it is no dict)
                    if homes.get(name, path.name) == path.name:
                        self._add(name, path, file.get_slice(name))

    def _add(self, name: str, path: Path, piece) -> None:
        if name in self._stored:
            raise UserError(
                f"{self.folder} has {name} in {self._stored[name][0].name} and in "
                f"{path.name}, and no {_INDEX} says which is the model's; remove the "
                "other file."
            )
        self._stored[name] = (path, tuple(piece.get_shape()), piece.get_dtype())

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises UserError unless `name` exists with `shape` and a supported dtype."""
        if name not in self._stored:
            raise UserError(
                f"{self.folder} has no tensor {name!r} that config.json implies."
            )
        path, found, code = self._stored[name]
        if found != shape:
            raise UserError(
                f"{path}: {name} has shape {found}, config.json implies {shape}; the "
                "two files do not belong together."
            )
        if code not in _CODES.values():
            raise UserError(
                f"{path}: {name} is stored as {code}; {', '.join(_CODES.values())} are "
                "read. Use the checkpoint that is not quantised."
            )

    def check_used(self, used: Collection[str]) -> None:
        """Raises UserError for a tensor of the model that is not `used`, as of a layer
        or a bias that config.json does not name: without it, it is another model."""
        ours = (name for name in self._stored if name.startswith("model."))
        left = sorted(
            name for name in ours if name not in used and not name.endswith(_COMPUTED)
        )
        if left:
            raise UserError(
                f"{self.folder} has {left[0]} ({len(left)} such tensors), for which "
                "the model of config.json has no place; the two do not belong together."
            )

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Reads only `tensor[index]`, a tuple of slices; None: all of it."""
        with _opened(self._stored[name][0]) as file:
            return file.get_slice(name)[(slice(None),) if index is None else index]


def _weight_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """(files, file of each tensor): the whole model's, or those of the index, or all
    there are."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE], {}
    if not (folder / _INDEX).is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise UserError(f"{folder} holds no *.safetensors file.")
        return files, {}
    homes = _weight_map(folder / _INDEX)
    files = [folder / name for name in sorted(set(homes.values()))]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}, which {_INDEX} names; fetch the "
            "folder again."
        )
    return files, homes


def _weight_map(path: Path) -> dict[str, str]:
    """The file of each tensor, from the index."""
    found = read_object(path, remedy=REMEDY).get("weight_map")
    # A file of another folder would be no part of this model.
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in found.values()
    ):
        raise UserError(
            f"{path} has no weight_map from tensors to files; fetch it again."
        )
    return found


def _opened(path: Path):
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no whole safetensors file ({error}); fetch it again."
        ) from error


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor to write, which `fetch()` brings to the host."""

    name: str
    shape: tuple[int, ...]
    fetch: Callable[[], np.ndarray]


def write(
    folder: Path, tensors: Sequence[Tensor], *, dtype: str, max_shard_bytes: int
) -> None:
    """Writes `tensors`, all of `dtype`, into files of at most `max_shard_bytes`.

    There is one tensor in memory at a time, and one alone in a file that it overfills.
    One file is `model.safetensors`; several come with an index, as in `transformers`.
    """
    item_bytes = np.dtype(dtype).itemsize
    shards = _split(tensors, max_shard_bytes // item_bytes)
    if len(shards) == 1:
        _write_file(folder / _WHOLE, tensors, dtype)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / name, shard, dtype)
        weight_map |= {tensor.name: name for tensor in shard}
    total = item_bytes * sum(_size(tensor) for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def check_dtype(dtype: str) -> None:
    """Raises UserError for an unsupported dtype of written weights."""
    if dtype not in _CODES:
        raise UserError(f"dtype {dtype!r} is not one of {', '.join(_CODES)}.")


def _size(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape))


def _split(tensors: Sequence[Tensor], max_size: int) -> list[list[Tensor]]:
    shards, room = [], 0
    for tensor in tensors:
        if not shards or _size(tensor) > room:
            shards.append([])
            room = max_size
        shards[-1].append(tensor)
        room -= _size(tensor)
    return shards


def _write_file(path: Path, tensors: Sequence[Tensor], dtype: str) -> None:
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + _size(tensor) * np.dtype(dtype).itemsize
        header[tensor.name] = {
            "dtype": _CODES[dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            value = np.ascontiguousarray(tensor.fetch())
            assert value.shape == tensor.shape
            assert value.dtype == np.dtype(dtype)
            file.write(value.reshape(-1).view(np.uint8).data)

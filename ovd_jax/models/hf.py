"""Hugging Face folders to and from a `Transformer`, one tensor at a time."""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from ovd_jax.errors import UserError
from ovd_jax.models import shards
from ovd_jax.models.folders import copy_companions, replaced
from ovd_jax.models.hf_config import find_gguf, read_config, read_raw, to_hf_config
from ovd_jax.models.transformer import Transformer, is_matrix

_LAYER_NAMES = {  # ours -> Hugging Face's; kernels are stored transposed there
    "attention_norm/scale": "input_layernorm.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    **{f"{x}/kernel": f"self_attn.{x}_proj.weight" for x in "qkvo"},
    **{f"{x}/bias": f"self_attn.{x}_proj.bias" for x in "qkv"},
    **{f"{x}_norm/scale": f"self_attn.{x}_norm.weight" for x in "qk"},
    **{f"{x}/kernel": f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}
_TOP_NAMES = {
    "embed/embedding": "model.embed_tokens.weight",
    "norm/scale": "model.norm.weight",
    "head": "lm_head.weight",
}
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A parameter in the files: whole, or one tensor for each layer."""

    names: tuple[str, ...]
    shape: tuple[int, ...]  # of each tensor
    stacked: bool
    transposed: bool


def resolve(model: str) -> Path:
    """The local folder of `model`: itself, or a snapshot of a hub repository.

    Raises UserError with the remedy if there is neither.
    """
    path = Path(model)
    if path.is_dir() or find_gguf(path):
        read_raw(path)  # says what to do if there is only a GGUF, or nothing
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise UserError(
            f"No model folder at {model!r}, and it is no hub name (owner/name)."
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen types of its own
        raise UserError(
            f"Could not fetch {model!r} from the hub ({type(error).__name__}: "
            f"{error}); pass a local Hugging Face folder instead."
        ) from error


def load(
    folder: Path,
    dtype: DTypeLike = jnp.float32,
    shardings: Any = None,
    *,
    matrices: DTypeLike = jnp.float32,
) -> Transformer:
    """The model in `folder`, computing in `dtype`; its matrices are kept as `matrices`,
    all else in float32.

    `shardings` is a tree of the model's structure with a NamedSharding for each array;
    of a tensor, every process reads what its devices hold. The host keeps one tensor of
    the files at a time, besides what devices hold in its memory. Raises UserError
    naming a tensor that is missing, has another shape or no place in the model.
    """
    config = read_config(folder)
    abstract = jax.eval_shape(lambda: Transformer(config, jax.random.key(0), dtype))
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    kinds = [matrices if is_matrix(path) else x.dtype for path, x in leaves]
    places = jax.tree.leaves(shardings) or [None] * len(leaves)
    tensors = shards.Tensors(folder)
    stored = [_stored(path, leaf) for path, leaf in leaves]
    for parameter in stored:  # all of them, before the first is read
        for name in parameter.names:
            tensors.check(name, parameter.shape)
    tensors.check_used({name for parameter in stored for name in parameter.names})
    return treedef.unflatten(
        _read(tensors, parameter, leaf.update(dtype=kind), place)
        for parameter, (_, leaf), kind, place in zip(
            stored, leaves, kinds, places, strict=True
        )
    )


def _stored(path, leaf) -> _Stored:
    """The form of the parameter at `path` in Hugging Face's files."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    name = name.removesuffix("/value")
    if name in _TOP_NAMES:
        return _Stored((_TOP_NAMES[name],), leaf.shape, stacked=False, transposed=False)
    num_layers, *shape = leaf.shape
    suffix = name.removeprefix("layers/")
    transposed = suffix.endswith("kernel")
    names = (f"model.layers.{n}.{_LAYER_NAMES[suffix]}" for n in range(num_layers))
    shape = tuple(reversed(shape) if transposed else shape)
    return _Stored(tuple(names), shape, stacked=True, transposed=transposed)


def _read(tensors: shards.Tensors, stored: _Stored, leaf, place: Sharding | None):
    """A parameter on the devices of `place`.

    Layers are written into a donated buffer one by one. Stacked by NumPy they would
    need twice the memory, and a CPU device cannot be donated NumPy's memory.
    """

    def fetch(name):
        if place is None:
            return tensors.read(name)
        return jax.make_array_from_callback(
            stored.shape,
            _place_in_files(place, stored),
            lambda i: tensors.read(name, i),
        )

    if not stored.stacked:
        cast = jax.jit(_cast, static_argnums=1, out_shardings=place)
        return cast(fetch(stored.names[0]), leaf.dtype).block_until_ready()
    zeros = jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=place)
    value = zeros(leaf.shape, leaf.dtype)
    put = jax.jit(_put, static_argnums=3, donate_argnums=0, out_shardings=place)
    for layer, name in enumerate(stored.names):
        value = put(value, fetch(name), layer, stored.transposed)
        value.block_until_ready()  # else pieces pile up on the host
    return value


def _place_in_files(place: Sharding, stored: _Stored) -> Sharding:
    """The destination of each tensor of a parameter, with its axes as in the files."""
    if not stored.stacked or not isinstance(place, NamedSharding):
        return place
    axes = [*place.spec, *[None] * len(stored.shape)][1 : 1 + len(stored.shape)]
    return NamedSharding(
        place.mesh, PartitionSpec(*(reversed(axes) if stored.transposed else axes))
    )


def _cast(value, dtype):
    return value.astype(dtype)


def _put(value, layer, index, transposed):
    layer = (layer.T if transposed else layer).astype(value.dtype)
    return jax.lax.dynamic_update_index_in_dim(value, layer, index, axis=0)


def stored_tensors(model: Transformer, dtype: DTypeLike) -> list[shards.Tensor]:
    """The model's weights under Hugging Face's names, in its layout."""
    top, layers = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        stored = _stored(path, leaf)
        for layer, name in enumerate(stored.names):
            fetch = functools.partial(_fetch, leaf, stored, layer, dtype)
            tensor = shards.Tensor(name, stored.shape, fetch)
            (layers if stored.stacked else top).append((layer, tensor))
    # A layer's tensors side by side, so that few shards hold each.
    return [tensor for _, tensor in top + sorted(layers, key=lambda pair: pair[0])]


def _fetch(leaf, stored: _Stored, layer: int, dtype) -> np.ndarray:
    """A parameter, or its layer if it has some, on the host of every process."""
    if stored.stacked:
        value = _take(leaf, layer, stored.transposed, dtype)
    else:
        value = leaf.astype(dtype)
    if value.is_fully_addressable:
        return np.asarray(value)
    return np.asarray(multihost_utils.process_allgather(value, tiled=True))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _take(value, index, transposed, dtype):
    layer = jax.lax.dynamic_index_in_dim(value, index, axis=0, keepdims=False)
    return (layer.T if transposed else layer).astype(dtype)


def save(
    model: Transformer,
    folder: Path,
    tokenizer: Any = None,
    dtype: DTypeLike = jnp.float32,
    *,
    source: Path | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a folder that `load`, `transformers` and vLLM read.

    `source` is the folder that the model came from: its tokenizer, chat template and
    generation settings come along as they are; without one, `tokenizer` is saved.
    Weights are cut into files of at most `max_shard_bytes`; the host keeps one tensor
    at a time. All processes take part, the first one writes. Raises UserError rather
    than replace a folder that holds no model.
    """
    dtype = jnp.dtype(dtype)
    shards.check_dtype(dtype.name)
    tensors = stored_tensors(model, dtype)
    if jax.process_index() != 0:
        for tensor in tensors:
            tensor.fetch()
        return
    raw = to_hf_config(model.config) | {"dtype": dtype.name}
    with replaced(folder) as new:
        if source is not None:
            copy_companions(Path(source), new)
            theirs = read_raw(source)
            raw |= {name: theirs[name] for name in _TOKEN_IDS if name in theirs}
        elif tokenizer is not None:
            tokenizer.save_pretrained(new)
            raw |= {name: getattr(tokenizer, name) for name in _TOKEN_IDS}
        (new / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
        shards.write(new, tensors, dtype=dtype.name, max_shard_bytes=max_shard_bytes)

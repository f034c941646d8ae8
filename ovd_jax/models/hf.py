"""Hugging Face folders to and from a `Transformer`: config.json and safetensors."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ovd_jax.learning.sharding import fetch
from ovd_jax.models.transformer import RopeScaling, Transformer, TransformerConfig

_FAMILIES = ("llama", "qwen2")
_LAYER_NAMES = {  # ours -> Hugging Face's; kernels are stored transposed there
    "attention_norm/scale": "input_layernorm.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    **{f"{x}/kernel": f"self_attn.{x}_proj.weight" for x in "qkvo"},
    **{f"{x}/bias": f"self_attn.{x}_proj.bias" for x in "qkv"},
    **{f"{x}/kernel": f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}
_TOP_NAMES = {
    "embed/embedding": "model.embed_tokens.weight",
    "norm/scale": "model.norm.weight",
    "head": "lm_head.weight",
}


def resolve(model: str) -> Path:
    """The local folder of `model`: itself, or a hub repository's snapshot.

    Raises ValueError where neither can be had, with the remedy.
    """
    if Path(model).is_dir():
        return Path(model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise ValueError(
            f"No model folder at {model!r}, and it is no hub name (owner/name)."
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen types of its own
        raise ValueError(
            f"Could not fetch {model!r} from the hub ({type(error).__name__}: "
            f"{error}); pass a local Hugging Face folder instead."
        ) from error


def read_config(folder: Path) -> TransformerConfig:
    """The architecture in `folder/config.json`; ValueError if it is another family."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {folder} is no Hugging Face folder.")
    return parse_config(json.loads(path.read_text(encoding="utf-8")))


def parse_config(raw: dict) -> TransformerConfig:
    """A Hugging Face config as ours; both spellings of the rotary settings are read."""
    family = raw.get("model_type")
    if family not in _FAMILIES:
        raise ValueError(f"model_type {family!r} is not one of {', '.join(_FAMILIES)}.")
    unsupported = ["mlp_bias", "use_sliding_window"]
    if family == "llama":
        unsupported.append("attention_bias")  # there, o_proj has a bias as well
    for name in unsupported:
        if raw.get(name):
            raise ValueError(f"{name} in config.json is not supported.")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"hidden_act {raw['hidden_act']!r} is not supported (silu is)."
        )
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    heads = raw["num_attention_heads"]
    return TransformerConfig(
        vocab_size=raw["vocab_size"],
        width=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        mlp_width=raw["intermediate_size"],
        rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0),
        rope_scaling=_parse_scaling(rope),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        tied_head=raw.get("tie_word_embeddings", False),
        qkv_bias=family == "qwen2",
        max_positions=raw.get("max_position_embeddings", 2048),
    )


def _parse_scaling(rope: dict) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(
            f"rope_type {kind!r} is not supported (default and llama3 are)."
        )
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_max_positions=rope["original_max_position_embeddings"],
    )


def to_hf_config(config: TransformerConfig) -> dict:
    """The `config.json` that `transformers` and vLLM read."""
    family = "qwen2" if config.qkv_bias else "llama"
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling:
        scaling = config.rope_scaling
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    return {
        "architectures": [
            "Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM"
        ],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,  # transformers >= 5
        "rope_scaling": rope if config.rope_scaling else None,  # transformers 4, vLLM
        "tie_word_embeddings": config.tied_head,
        "attention_bias": False,
    }


def load(folder: Path, dtype=jnp.float32, shardings=None) -> Transformer:
    """The model in `folder`, float32 weights computing in `dtype`.

    `shardings` is a tree of the model's structure with a NamedSharding for each array.
    Raises ValueError naming a tensor that is missing or has another shape.
    """
    config = read_config(folder)
    abstract = jax.eval_shape(lambda: Transformer(config, jax.random.key(0), dtype))
    tensors = _Tensors(Path(folder))

    def read(path, leaf, sharding=None):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        value = _read_parameter(tensors, name.removesuffix("/value"), config.num_layers)
        if value.shape != leaf.shape:
            raise ValueError(
                f"{folder}: {name} has shape {value.shape}, config.json implies "
                f"{leaf.shape}; the two files do not belong together."
            )
        if sharding is None:
            return jnp.asarray(value, leaf.dtype)
        return jax.make_array_from_callback(
            value.shape, sharding, lambda index: value[index], dtype=leaf.dtype
        )

    trees = [abstract] if shardings is None else [abstract, shardings]
    return jax.tree_util.tree_map_with_path(read, *trees)


def _read_parameter(tensors: "_Tensors", name: str, num_layers: int) -> np.ndarray:
    """One of our parameters; those under `layers/` are stacked along N."""
    if name in _TOP_NAMES:
        return tensors[_TOP_NAMES[name]]
    suffix = name.removeprefix("layers/")
    stack = [
        tensors[f"model.layers.{index}.{_LAYER_NAMES[suffix]}"]
        for index in range(num_layers)
    ]
    stacked = np.stack(stack)
    return stacked.swapaxes(1, 2) if suffix.endswith("kernel") else stacked


class _Tensors:
    """Tensors by name over all safetensors files of a folder, as float32."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = safe_open(path, framework="flax")
            self.files |= dict.fromkeys(file.keys(), file)
        if not self.files:
            raise ValueError(f"{folder} holds no *.safetensors file.")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.files:
            raise ValueError(
                f"{self.folder} has no tensor {name!r} that config.json implies."
            )
        return np.asarray(self.files[name].get_tensor(name), np.float32)


def named_tensors(model: Transformer, dtype) -> Iterator[tuple[str, np.ndarray]]:
    """The model's weights under Hugging Face's names and in its layout."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        name = name.removesuffix("/value")
        value = np.asarray(fetch(leaf)).astype(dtype)
        if name in _TOP_NAMES:
            yield _TOP_NAMES[name], value
            continue
        suffix = name.removeprefix("layers/")
        for index, layer in enumerate(value):
            tensor = layer.T if suffix.endswith("kernel") else layer
            yield (
                f"model.layers.{index}.{_LAYER_NAMES[suffix]}",
                np.ascontiguousarray(tensor),
            )


def save(model: Transformer, folder: Path, tokenizer=None, dtype=jnp.float32) -> None:
    """Writes a folder that `load`, `transformers` and vLLM read.

    All processes take part, the first one writes.
    """
    tensors = dict(named_tensors(model, dtype))
    if jax.process_index() != 0:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    raw = to_hf_config(model.config) | {"dtype": jnp.dtype(dtype).name}
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        raw |= {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    weights = folder / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # `save_file` lets nobody but the owner read it

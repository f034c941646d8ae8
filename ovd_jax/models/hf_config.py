"""`config.json` of Hugging Face folders from and to a `TransformerConfig`."""

import math
from pathlib import Path

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_object
from ovd_jax.models.transformer import RopeScaling, TransformerConfig

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
REMEDY = "fetch it again"  # for a broken file of a model's folder
_POSITIONS = {"llama": 2048, "qwen2": 32_768, "qwen3": 32_768}  # transformers' own


def read_config(folder: Path) -> TransformerConfig:
    """The architecture in `folder/config.json`. Raises UserError for another family."""
    return parse_config(read_raw(folder))


def read_raw(folder: Path) -> dict:
    """The content of `folder/config.json`. Raises UserError without one."""
    path = Path(folder) / "config.json"
    if path.is_file():
        return read_object(path, remedy=REMEDY)
    if files := find_gguf(folder):
        raise UserError(
            f"{folder} is no Hugging Face folder; of a GGUF make one first, with "
            f"`python launch/export.py --config.model={files[0]} --config.output=DIR`."
        )
    raise UserError(f"{path} is missing: {folder} is no Hugging Face folder.")


def find_gguf(path: Path) -> list[Path]:
    """The GGUF files that `path` is or holds."""
    path = Path(path)
    if path.is_file():
        return [path] if path.suffix == ".gguf" else []
    return sorted(path.glob("*.gguf"))


def parse_config(raw: dict) -> TransformerConfig:
    """A Hugging Face config as ours; both spellings of the rotary settings are read."""
    family = _model_type(raw)
    rope = _rope(raw)
    width, heads = _count(raw, "hidden_size"), _count(raw, "num_attention_heads")
    kv_heads = _count(raw, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise UserError(
            f"config.json has {heads} num_attention_heads, which {kv_heads} "
            "num_key_value_heads do not divide."
        )
    head_dim = _count(raw, "head_dim", width // heads)
    if head_dim % 2:
        raise UserError(
            f"config.json has heads of size {head_dim}; rotary positions need an even "
            "one."
        )
    theta = _number(raw, "rope_theta", 10_000.0)
    return TransformerConfig(
        vocab_size=_count(raw, "vocab_size"),
        width=width,
        num_layers=_count(raw, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=_count(raw, "intermediate_size"),
        rope_theta=_number(rope, "rope_theta", theta),
        rope_scaling=_parse_scaling(rope),
        norm_eps=_number(raw, "rms_norm_eps", 1e-6),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        max_positions=_count(raw, "max_position_embeddings", _POSITIONS[family]),
    )


def _rope(raw: dict) -> dict:
    """The rotary settings, under the name of transformers 5 or of earlier ones. Raises
    UserError where the two differ, or for settings of parts of the model."""
    new, old = (raw.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    for rope in (new, old):
        if not isinstance(rope, dict):
            raise UserError(f"rope_scaling in config.json is {rope!r}, no JSON object.")
        if any(isinstance(value, dict) for value in rope.values()):
            raise UserError(
                "config.json has rotary settings for kinds of layers "
                f"({', '.join(rope)}); models whose layers are all alike are read."
            )
    if new and old and _parse_scaling(new) != _parse_scaling(old):
        raise UserError(
            "rope_parameters and rope_scaling in config.json differ; remove one."
        )
    turned = (new or old).get("partial_rotary_factor") or 1.0
    if (raw.get("partial_rotary_factor") or turned) != 1.0:
        raise UserError("partial_rotary_factor in config.json is not supported.")
    return new or old


def _model_type(raw: dict) -> str:
    """The `model_type`. Raises UserError for an unknown one, or for unsupported
    features."""
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in _CLASSES:
        raise UserError(f"model_type {family!r} is not one of {', '.join(_CLASSES)}.")
    unsupported = ["mlp_bias", "use_sliding_window", "quantization_config"]
    if family != "qwen2":
        unsupported.append("attention_bias")  # there, o_proj has a bias as well
    for name in unsupported:
        if raw.get(name):
            raise UserError(f"{name} in config.json is not supported.")
    kinds = raw.get("layer_types") or ["full_attention"]
    if not isinstance(kinds, list) or set(map(str, kinds)) != {"full_attention"}:
        raise UserError(f"layer_types {kinds} in config.json are not supported.")
    if raw.get("hidden_act", "silu") != "silu":
        raise UserError(f"hidden_act {raw['hidden_act']!r} is not supported (silu is).")
    return family


def _count(raw: dict, name: str, default: int | None = None) -> int:
    """An integer above 0, or `default` if missing. Raises UserError."""
    value = _number(raw, name, default)
    if value != int(value):
        raise UserError(f"{name} in config.json is {value!r}, not a whole number.")
    return int(value)


def _number(raw: dict, name: str, default: float | None = None) -> float:
    """A number above 0, or `default` if missing. Raises UserError."""
    value = raw.get(name)
    value = default if value is None else value
    if value is None:
        raise UserError(f"config.json has no {name}; take the whole one of the model.")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise UserError(f"{name} in config.json is {value!r}, not a number above 0.")
    return value


def _parse_scaling(rope: dict) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(
            f"rope_type {kind!r} is not supported (default and llama3 are)."
        )
    low, high = (_number(rope, f"{which}_freq_factor") for which in ("low", "high"))
    if low >= high:
        raise UserError(
            f"config.json has low_freq_factor {low}, which must be below "
            f"high_freq_factor {high}."
        )
    return RopeScaling(
        factor=_number(rope, "factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_positions=_count(rope, "original_max_position_embeddings"),
    )


def to_hf_config(config: TransformerConfig) -> dict:
    """The `config.json` that `transformers` and vLLM read."""
    family = _family(config)
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
        "architectures": [_CLASSES[family]],
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


def _family(config: TransformerConfig) -> str:
    if config.qkv_bias and config.qk_norm:
        raise UserError("No family has both qkv_bias and qk_norm; set one of them.")
    if config.qk_norm:
        return "qwen3"
    return "qwen2" if config.qkv_bias else "llama"

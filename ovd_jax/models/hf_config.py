"""`config.json` of Hugging Face's folders to and from a `TransformerConfig`."""

import json
from pathlib import Path

from ovd_jax.errors import UserError
from ovd_jax.models.transformer import RopeScaling, TransformerConfig

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def read_config(folder: Path) -> TransformerConfig:
    """The architecture in `folder/config.json`; UserError if it is another family."""
    return parse_config(read_raw(folder))


def read_raw(folder: Path) -> dict:
    """What `folder/config.json` says. Raises UserError where there is none."""
    path = Path(folder) / "config.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
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
    family = raw.get("model_type")
    if family not in _CLASSES:
        raise UserError(f"model_type {family!r} is not one of {', '.join(_CLASSES)}.")
    unsupported = ["mlp_bias", "use_sliding_window", "quantization_config"]
    if family != "qwen2":
        unsupported.append("attention_bias")  # there, o_proj has a bias as well
    for name in unsupported:
        if raw.get(name):
            raise UserError(f"{name} in config.json is not supported.")
    if raw.get("hidden_act", "silu") != "silu":
        raise UserError(f"hidden_act {raw['hidden_act']!r} is not supported (silu is).")
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
        qk_norm=family == "qwen3",
        max_positions=raw.get("max_position_embeddings", 2048),
    )


def _parse_scaling(rope: dict) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(
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

"""GGUF files of Llama and Qwen models as Hugging Face folders, read without torch."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from ovd_jax.errors import UserError
from ovd_jax.models.folders import replaced

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_TOP_NAMES = {  # llama.cpp -> Hugging Face
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    **{f"attn_{x}.weight": f"self_attn.{x}_proj.weight" for x in "qkv"},
    **{f"ffn_{x}.weight": f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}
_OWN_BLOCK_NAMES = {  # what one architecture has and the others have not
    "llama": {},
    "qwen2": {f"attn_{x}.bias": f"self_attn.{x}_proj.bias" for x in "qkv"},
    "qwen3": {f"attn_{x}_norm.weight": f"self_attn.{x}_norm.weight" for x in "qk"},
}
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_QWEN2_PIECE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre -> how text is cut before merges, as src/llama-vocab.cpp of
# llama.cpp has it. A GGUF holds this name only, so every name must be known here.
_PRE_TOKENIZERS = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), _GPT2]),
    "qwen2": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
_SPECIAL_IDS = {  # Hugging Face -> GGUF
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
}


def read_gguf(path: str | Path) -> tuple[dict, Iterator[tuple[str, np.ndarray]]]:
    """(config.json's content, float32 tensors one by one under Hugging Face's names).

    Raises UserError for an architecture or a tensor that is not known.
    """
    reader = _opened(path)
    metadata = _read_metadata(reader)
    return _to_hf_config(reader, metadata), _read_tensors(reader, metadata)


def write_hf_folder(gguf_path: str | Path, out_dir: str | Path) -> None:
    """Writes a folder for `models.hf`, `transformers` and vLLM.

    `out_dir` is never incomplete. Replaces a model folder; raises UserError for
    anything else there.
    """
    reader = _opened(gguf_path)
    metadata = _read_metadata(reader)
    with replaced(out_dir) as folder:
        _write_files(reader, metadata, folder)


def _opened(path: str | Path) -> GGUFReader:
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise UserError(
            f"{path} is no whole GGUF file ({error}); fetch it again."
        ) from error


class _Metadata(dict):
    """A GGUF's; what is missing is its maker's fault."""

    def __missing__(self, name: str):
        raise UserError(f"This GGUF has no {name}; convert the model anew.")


def _read_metadata(reader: GGUFReader) -> _Metadata:
    metadata = _Metadata(
        (name, field.contents()) for name, field in reader.fields.items()
    )
    arch = metadata["general.architecture"]
    if arch not in _CLASSES:
        raise UserError(
            f"GGUF architecture {arch!r} is not supported; {', '.join(_CLASSES)} are."
        )
    if metadata.get("split.count", 1) > 1:
        raise UserError("This GGUF is one of several parts; join them first.")
    scaling = metadata.get(f"{arch}.rope.scaling.type", "none")
    if scaling != "none":
        raise UserError(f"Rotary scaling {scaling!r} of a GGUF is not supported.")
    return metadata


def _to_hf_config(reader: GGUFReader, metadata: dict) -> dict:
    arch = metadata["general.architecture"]
    shapes = _Metadata((tensor.name, tensor.shape) for tensor in reader.tensors)
    width = metadata[f"{arch}.embedding_length"]
    num_heads = metadata[f"{arch}.attention.head_count"]
    theta = metadata.get(f"{arch}.rope.freq_base", 10_000.0)
    config = {
        "architectures": [_CLASSES[arch]],
        "model_type": arch,
        "vocab_size": int(shapes["token_embd.weight"][-1]),  # GGUF shapes are reversed
        "hidden_size": width,
        "num_hidden_layers": metadata[f"{arch}.block_count"],
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.get(
            f"{arch}.attention.head_count_kv", num_heads
        ),
        "head_dim": metadata.get(f"{arch}.attention.key_length", width // num_heads),
        "intermediate_size": metadata[f"{arch}.feed_forward_length"],
        "hidden_act": "silu",
        "max_position_embeddings": metadata[f"{arch}.context_length"],
        "rms_norm_eps": metadata[f"{arch}.attention.layer_norm_rms_epsilon"],
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": "output.weight" not in shapes,
        "attention_bias": False,
        "dtype": "float32",
    }
    return config | _special_ids(metadata)


def _special_ids(metadata: dict) -> dict:
    found = {
        f"{role}_token_id": metadata[key]
        for role, key in _SPECIAL_IDS.items()
        if key in metadata
    }
    size = len(metadata["tokenizer.ggml.tokens"])
    for role, token_id in found.items():
        if token_id >= size:
            raise UserError(f"This GGUF has {role} {token_id} of {size} tokens.")
    return found


def _read_tensors(
    reader: GGUFReader, metadata: dict
) -> Iterator[tuple[str, np.ndarray]]:
    """Names are checked here, before the first tensor is read."""
    arch = metadata["general.architecture"]
    named = [(_hf_name(tensor.name, arch), tensor) for tensor in reader.tensors]
    num_heads = metadata[f"{arch}.attention.head_count"]
    heads = {
        "q_proj": num_heads,
        "k_proj": metadata.get(f"{arch}.attention.head_count_kv", num_heads),
    }

    def read(name, tensor):
        value = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        projection = name.split(".")[-2]
        if arch == "llama" and projection in heads:
            return _split_halves(value, heads[projection])
        return value

    return ((name, read(name, tensor)) for name, tensor in named)


def _hf_name(name: str, arch: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    block = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    suffixes = _BLOCK_NAMES | _OWN_BLOCK_NAMES[arch]
    if block is None or block[2] not in suffixes:
        raise UserError(
            f"Tensor {name!r} of this GGUF has no counterpart in {_CLASSES[arch]}."
        )
    return f"model.layers.{block[1]}.{suffixes[block[2]]}"


def _split_halves(weight_FD: np.ndarray, num_heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of query and key rows.

    It rotates neighbours (0, 1), (2, 3), ... of a Llama head; Hugging Face rotates the
    i-th of the first half with the i-th of the second.
    """
    pairs = weight_FD.reshape(num_heads, -1, 2, *weight_FD.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight_FD.shape)


def _write_files(reader: GGUFReader, metadata: dict, folder: Path) -> None:
    config = _to_hf_config(reader, metadata)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    special_ids = _special_ids(metadata)
    for role in _SPECIAL_IDS:
        if (token_id := special_ids.get(f"{role}_token_id")) is not None:
            token = metadata["tokenizer.ggml.tokens"][token_id]
            tokenizer_config[f"{role}_token"] = token
    _build_tokenizer(metadata).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    _write_json(folder / "config.json", config)
    special_ids.pop("unk_token_id", None)  # no setting of generation
    _write_json(folder / "generation_config.json", special_ids)
    if template := metadata.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    save_file(
        dict(_read_tensors(reader, metadata)),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def _write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _build_tokenizer(metadata: dict) -> Tokenizer:
    """The byte-level BPE tokenizer that the metadata describe."""
    kind = metadata.get("tokenizer.ggml.model")
    pre = metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise UserError(
            f"GGUF tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported; "
            f"'gpt2' with one of {', '.join(_PRE_TOKENIZERS)} is."
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata["tokenizer.ggml.token_type"]
    if len(types) != len(tokens):
        raise UserError(
            f"This GGUF has {len(tokens)} tokens, and token types of {len(types)}."
        )
    used = [pair for pair in enumerate(tokens) if types[pair[0]] != TokenType.UNUSED]
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in used}, merges))
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    for i, token in used:
        if types[i] == TokenType.CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
        elif types[i] == TokenType.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    if metadata.get("tokenizer.ggml.add_bos_token"):
        bos_id = metadata[_SPECIAL_IDS["bos"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos_id]} $A", special_tokens=[(tokens[bos_id], bos_id)]
        )
    return tokenizer

"""GGUF files of 2-layer models, as llama.cpp's converter writes them."""

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from tokenizers import pre_tokenizers

HEADS, KV_HEADS, HEAD_DIM, WIDTH, MLP_WIDTH, LAYERS = 4, 2, 8, 32, 64, 2
Q_ROWS, KV_ROWS = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
CONTROL = ("<|end|>", "<|start|>")
MERGES = ("a b", "Ġ Ġ", "1 2")
TEMPLATE = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}"


def hf_tensors(arch="llama"):
    """Random weights of a 2-layer model under Hugging Face's names."""
    rng = np.random.default_rng(0)
    shapes = {
        "model.embed_tokens.weight": (len(tokens()), WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        block = {
            "input_layernorm.weight": (WIDTH,),
            "post_attention_layernorm.weight": (WIDTH,),
            "self_attn.q_proj.weight": (Q_ROWS, WIDTH),
            "self_attn.k_proj.weight": (KV_ROWS, WIDTH),
            "self_attn.v_proj.weight": (KV_ROWS, WIDTH),
            "self_attn.o_proj.weight": (WIDTH, Q_ROWS),
            "mlp.gate_proj.weight": (MLP_WIDTH, WIDTH),
            "mlp.up_proj.weight": (MLP_WIDTH, WIDTH),
            "mlp.down_proj.weight": (WIDTH, MLP_WIDTH),
        }
        if arch == "qwen2":
            block["self_attn.q_proj.bias"] = (Q_ROWS,)
            block |= {f"self_attn.{x}_proj.bias": (KV_ROWS,) for x in "kv"}
        if arch == "qwen3":
            block |= {f"self_attn.{x}_norm.weight": (HEAD_DIM,) for x in "qk"}
        shapes |= {f"model.layers.{layer}.{name}": s for name, s in block.items()}
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def gguf_name(name):
    for old, new in (
        ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"),
        ("model.layers.", "blk."), ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"), ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"), ("mlp.", "ffn_"), ("_proj", ""),
    ):  # fmt: skip
        name = name.replace(old, new)
    return name


def interleaved(weight, num_heads):
    """llama.cpp's order of rows: row i of a head's first half, then of its second."""
    halves = np.arange(len(weight)).reshape(num_heads, 2, -1)
    return weight[np.stack([halves[:, 0], halves[:, 1]], axis=-1).ravel()]


def tokens():
    """Control tokens, the byte alphabet, merges, and a place held for nothing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*CONTROL, *letters, *(m.replace(" ", "") for m in MERGES), "[PAD0]"]


def write_gguf(path, tensors, arch="llama", *, q8_0="", pre="smollm", add_bos=False):
    """A GGUF as llama.cpp's converter writes it; the tensor named `q8_0` quantised."""
    writer = GGUFWriter(path, arch)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens())
    kinds = {**dict.fromkeys(CONTROL, TokenType.CONTROL), "[PAD0]": TokenType.UNUSED}
    writer.add_token_types([kinds.get(token, TokenType.NORMAL) for token in tokens()])
    writer.add_token_merges(list(MERGES))
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(add_bos)
    writer.add_chat_template(TEMPLATE)
    for name, value in tensors.items():
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            value = interleaved(value, HEADS if "q_proj" in name else KV_HEADS)
        if name == q8_0:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

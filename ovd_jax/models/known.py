"""Architectures of well-known checkpoints, for planning without the weights at hand."""

from ovd_jax.models.transformer import RopeScaling, TransformerConfig


def _qwen2(width, layers, heads, kv_heads, mlp, *, tied, vocab=151_936, theta=1e6):
    return TransformerConfig(
        vocab_size=vocab, width=width, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=width // heads, mlp_width=mlp,
        rope_theta=theta, norm_eps=1e-6, tied_head=tied, qkv_bias=True,
        max_positions=32_768,
    )  # fmt: skip


def _llama3(width, layers, heads, kv_heads, mlp, *, factor):
    scaling = RopeScaling(factor, 1.0, 4.0, 8192)
    return TransformerConfig(
        vocab_size=128_256, width=width, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=width // heads, mlp_width=mlp,
        rope_theta=5e5, rope_scaling=scaling, norm_eps=1e-5, tied_head=True,
        max_positions=131_072,
    )  # fmt: skip


KNOWN = {
    "Qwen/Qwen2.5-0.5B": _qwen2(896, 24, 14, 2, 4864, tied=True),
    "Qwen/Qwen2.5-1.5B": _qwen2(1536, 28, 12, 2, 8960, tied=True),
    "Qwen/Qwen2.5-Math-1.5B": _qwen2(1536, 28, 12, 2, 8960, tied=True, theta=1e4),
    "Qwen/Qwen2.5-3B": _qwen2(2048, 36, 16, 2, 11_008, tied=True),
    "Qwen/Qwen2.5-7B": _qwen2(3584, 28, 28, 4, 18_944, tied=False, vocab=152_064),
    "meta-llama/Llama-3.2-1B": _llama3(2048, 16, 32, 8, 8192, factor=32.0),
    "meta-llama/Llama-3.2-3B": _llama3(3072, 28, 24, 8, 8192, factor=32.0),
    "HuggingFaceTB/SmolLM2-135M-Instruct": TransformerConfig(
        vocab_size=49_152, width=576, num_layers=30, num_heads=9, num_kv_heads=3,
        head_dim=64, mlp_width=1536, rope_theta=1e5, norm_eps=1e-5, tied_head=True,
        max_positions=8192,
    ),
}  # fmt: skip

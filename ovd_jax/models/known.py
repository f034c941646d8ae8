"""Architectures of well-known checkpoints, for planning without the weights at hand."""

from ovd_jax.models.transformer import RopeScaling, TransformerConfig


def _qwen2(width, layers, heads, kv_heads, mlp, *, tied, vocab=151_936, theta=1e6):
    return TransformerConfig(
        vocab_size=vocab, width=width, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=width // heads, mlp_width=mlp,
        rope_theta=theta, norm_eps=1e-6, tied_head=tied, qkv_bias=True,
        max_positions=32_768,
    )  # fmt: skip


def _qwen3(width, layers, heads, mlp, *, tied):
    return TransformerConfig(
        vocab_size=151_936, width=width, num_layers=layers, num_heads=heads,
        num_kv_heads=8, head_dim=128, mlp_width=mlp, rope_theta=1e6, norm_eps=1e-6,
        tied_head=tied, qk_norm=True, max_positions=40_960,
    )  # fmt: skip


def _llama3(width, layers, heads, kv_heads, mlp, *, factor, tied=True):
    scaling = RopeScaling(factor, 1.0, 4.0, 8192)
    return TransformerConfig(
        vocab_size=128_256, width=width, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=width // heads, mlp_width=mlp,
        rope_theta=5e5, rope_scaling=scaling, norm_eps=1e-5, tied_head=tied,
        max_positions=131_072,
    )  # fmt: skip


def _smollm2(width, layers, heads, kv_heads, mlp, *, theta=1e5):
    return TransformerConfig(
        vocab_size=49_152, width=width, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=64, mlp_width=mlp, rope_theta=theta,
        norm_eps=1e-5, tied_head=True, max_positions=8192,
    )  # fmt: skip


KNOWN = {
    "Qwen/Qwen2.5-0.5B": _qwen2(896, 24, 14, 2, 4864, tied=True),
    "Qwen/Qwen2.5-1.5B": _qwen2(1536, 28, 12, 2, 8960, tied=True),
    "Qwen/Qwen2.5-Math-1.5B": _qwen2(1536, 28, 12, 2, 8960, tied=True, theta=1e4),
    "Qwen/Qwen2.5-3B": _qwen2(2048, 36, 16, 2, 11_008, tied=True),
    "Qwen/Qwen2.5-7B": _qwen2(3584, 28, 28, 4, 18_944, tied=False, vocab=152_064),
    "Qwen/Qwen3-0.6B": _qwen3(1024, 28, 16, 3072, tied=True),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 28, 16, 6144, tied=True),
    "Qwen/Qwen3-4B": _qwen3(2560, 36, 32, 9728, tied=True),
    "Qwen/Qwen3-8B": _qwen3(4096, 36, 32, 12_288, tied=False),
    "meta-llama/Llama-3.1-8B": _llama3(4096, 32, 32, 8, 14_336, factor=8.0, tied=False),
    "meta-llama/Llama-3.2-1B": _llama3(2048, 16, 32, 8, 8192, factor=32.0),
    "meta-llama/Llama-3.2-3B": _llama3(3072, 28, 24, 8, 8192, factor=32.0),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _smollm2(576, 30, 9, 3, 1536),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _smollm2(960, 32, 15, 5, 2560),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _smollm2(
        2048, 24, 32, 32, 8192, theta=1.3e5
    ),
}

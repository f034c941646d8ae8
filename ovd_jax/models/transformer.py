"""A decoder-only transformer for the Llama, Qwen2 and Qwen3 families.

Axis letters are those of docs/notation.md.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ovd_jax.errors import UserError
from ovd_jax.models.attention import Layout, attend, causal
from ovd_jax.models.sharding import look_up, split_rows

_KEPT = "output of a linear map"  # adapters' part included: it is kept once
REMAT = {  # what the backward pass need not compute again
    "none": None,
    "matmuls": jax.checkpoint_policies.save_only_these_names(_KEPT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the slow rotary frequencies (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The architecture; `models/hf.py` reads it from and writes it to `config.json`."""

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    tied_head: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False  # of each head's queries and keys, before they are rotated
    max_positions: int = 2048

    def check_length(self, tokens: int, what: str) -> None:
        """Raises UserError if `what` has more tokens than the model's positions: its
        answers would be bad."""
        if tokens > self.max_positions:
            raise UserError(
                f"{what}: {tokens} tokens, and the model knows {self.max_positions} "
                "positions (max_position_embeddings in its config.json); make it "
                "shorter, or take another model."
            )

    def check_tokens(self, tokens: Iterable[int], what: str) -> None:
        """Raises UserError if `what` has a token that the model has not: another one
        would be read in its place."""
        if (largest := max(tokens, default=0)) >= self.vocab_size:
            raise UserError(
                f"{what} has the token {largest}, and the model has {self.vocab_size} "
                "tokens (vocab_size in its config.json); take the tokenizer that it "
                "was trained with."
            )


def rope_frequencies(config: TransformerConfig) -> jax.Array:
    """Radians per position of each rotary pair, shape [E/2]."""
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = jnp.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (keep + (1 - keep) / scaling.factor)


def rotate(
    x_BTHE: jax.Array, positions_BT: jax.Array, frequencies: jax.Array
) -> jax.Array:
    """Applies rotary position embeddings, pairing channel i with i + E/2 as HF does."""
    positions_BT11 = positions_BT[:, :, None, None].astype(jnp.float32)
    angles = positions_BT11 * frequencies[None, None, None]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x_BTHE.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x_BTHE.dtype)


def embed_tokens(embed: nnx.Embed, tokens: jax.Array) -> jax.Array:
    """Embeddings [rows, ..., D] of `tokens` [rows, ...]."""
    return look_up(embed.embedding[...], tokens).astype(embed.dtype)


def is_matrix(path: tuple) -> bool:
    """True if the parameter at `path` is neither a bias nor a norm's scale."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return not any(part in name for part in ("norm", "bias"))


@jax.custom_vjp
def product(x: jax.Array, kernel_IO: jax.Array) -> jax.Array:
    """x [..., D] @ W.

    The gradient by W is x^T @ its cotangent. JAX alone would ask for the transpose,
    cotangent^T @ x: a CPU turns the left side around first, which takes it longer the
    more it costs to compute (here, what is behind a silu).
    """
    return x @ kernel_IO


def _product_forward(x, kernel_IO):
    return x @ kernel_IO, (x, kernel_IO)


def _product_backward(residuals, grad):
    x, kernel_IO = residuals
    return grad @ kernel_IO.T, jnp.einsum("...I,...O->IO", x, grad)


product.defvjp(_product_forward, _product_backward)


def _dot_general(x, kernel, dimensions, **_):
    """`product` in the interface of `nnx.Linear`."""
    return product(x, kernel)


class Linear(nnx.Linear):
    """x @ W + bias, and scale * x @ A @ B with adapters of `models/lora.py`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, dot_general=_dot_general, **kwargs)
        self.lora_a: nnx.Param | None = nnx.data(None)  # inputs, rank
        self.lora_b: nnx.Param | None = nnx.data(None)  # rank, outputs
        self.lora_scale = 0.0

    def __call__(self, x):
        outputs = super().__call__(x)
        if self.lora_a is not None and self.lora_b is not None:
            x, a, b = self.promote_dtype(
                (x, self.lora_a[...], self.lora_b[...]), dtype=self.dtype
            )
            outputs += (x @ a * self.lora_scale) @ b
        return checkpoint_name(outputs, _KEPT)


class Layer(nnx.Module):
    """One pre-norm block; every weight gains a leading N axis inside `Transformer`."""

    def __init__(self, config: TransformerConfig, dtype, rngs: nnx.Rngs):
        def linear(inputs, outputs, bias=False):
            return Linear(inputs, outputs, use_bias=bias, dtype=dtype, rngs=rngs)

        def norm(size):
            return nnx.RMSNorm(size, epsilon=c.norm_eps, dtype=dtype, rngs=rngs)

        c = config
        self.head_dim = c.head_dim
        self.attention_norm, self.mlp_norm = norm(c.width), norm(c.width)
        self.q_norm = norm(c.head_dim) if c.qk_norm else None
        self.k_norm = norm(c.head_dim) if c.qk_norm else None
        self.q = linear(c.width, c.num_heads * c.head_dim, c.qkv_bias)
        self.k = linear(c.width, c.num_kv_heads * c.head_dim, c.qkv_bias)
        self.v = linear(c.width, c.num_kv_heads * c.head_dim, c.qkv_bias)
        self.o = linear(c.num_heads * c.head_dim, c.width)
        self.gate = linear(c.width, c.mlp_width)
        self.up = linear(c.width, c.mlp_width)
        self.down = linear(c.mlp_width, c.width)

    def project(
        self, x_BTD: jax.Array, positions_BT: jax.Array, frequencies: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values, the first two rotated to their positions."""
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        normed_BTD = self.attention_norm(x_BTD)
        q_BTHE = self.q(normed_BTD).reshape(heads)
        k_BTKE = self.k(normed_BTD).reshape(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHE, k_BTKE = self.q_norm(q_BTHE), self.k_norm(k_BTKE)
        q_BTHE = rotate(q_BTHE, positions_BT, frequencies)
        k_BTKE = rotate(k_BTKE, positions_BT, frequencies)
        return q_BTHE, k_BTKE, self.v(normed_BTD).reshape(heads)

    def finish(self, x_BTD: jax.Array, mixed_BTD: jax.Array) -> jax.Array:
        """Adds the attention output, then the gated MLP."""
        x_BTD = x_BTD + self.o(mixed_BTD)
        normed_BTD = self.mlp_norm(x_BTD)
        hidden_BTF = jax.nn.silu(self.gate(normed_BTD)) * self.up(normed_BTD)
        return x_BTD + self.down(hidden_BTF)


class Transformer(nnx.Module):
    """`model(tokens_BT)` gives logits_BTV; `hidden` stops before the head."""

    def __init__(self, config: TransformerConfig, key, dtype=jnp.float32):
        self.config = config
        self.dtype = dtype
        self.attention = "auto"  # one of FORMS in models/attention.py
        layers_key, embed_key, head_key = jax.random.split(key, 3)
        self.embed = nnx.Embed(
            config.vocab_size, config.width, dtype=dtype, rngs=nnx.Rngs(embed_key),
            embedding_init=nnx.initializers.normal(0.02),
        )  # fmt: skip
        self.layers = jax.vmap(lambda key: Layer(config, dtype, nnx.Rngs(key)))(
            jax.random.split(layers_key, config.num_layers)
        )
        self.norm = nnx.RMSNorm(
            config.width, epsilon=config.norm_eps, dtype=dtype, rngs=nnx.Rngs(0)
        )
        if not config.tied_head:
            shape = (config.vocab_size, config.width)
            self.head = nnx.Param(nnx.initializers.normal(0.02)(head_key, shape))

    @property
    def head_VD(self) -> jax.Array:
        """The output projection, one row for each token."""
        weights = self.embed.embedding if self.config.tied_head else self.head
        return weights[...].astype(self.dtype)

    def __call__(self, tokens_BT) -> jax.Array:
        """Float32 logits_BTV; right padding changes nothing before it."""
        hidden_BTD = self.hidden(tokens_BT)
        return jnp.einsum(
            "BTD,VD->BTV", hidden_BTD, self.head_VD, preferred_element_type=jnp.float32
        )

    def hidden(
        self, tokens_BT: jax.Array, layout: Layout | None = None, *, remat: str = "none"
    ) -> jax.Array:
        """Final hidden states [B, T, D], causal or under `layout`.

        `remat` is what the backward pass recomputes: `none`, all but the `matmuls`, or
        each layer in `full`.
        """
        hidden_BTD, _ = self._run(tokens_BT, layout, remat=remat)
        return hidden_BTD

    def read(self, tokens_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(final hidden states [B, T, D], keys [N, B, T, K, E], values) to continue
        right-padded rows."""
        hidden_BTD, (keys, values) = self._run(tokens_BT, None, keep=True)
        return hidden_BTD, keys, values

    def _run(
        self, tokens_BT, layout, *, remat="none", keep=False
    ) -> tuple[jax.Array, Any]:
        layout = layout or causal(*tokens_BT.shape)
        frequencies = rope_frequencies(self.config)

        def block(x_BTD, layer):
            x_BTD = split_rows(x_BTD)
            q, k, v = layer.project(x_BTD, layout.positions_BT, frequencies)
            kept = (k, v) if keep else None
            mixed_BTD = attend(q, k, v, layout, form=self.attention)
            return layer.finish(x_BTD, mixed_BTD), kept

        if remat != "none":
            block = jax.checkpoint(block, policy=REMAT[remat], prevent_cse=False)
        x_BTD, kept = jax.lax.scan(
            block, embed_tokens(self.embed, tokens_BT), self.layers
        )
        return self.norm(x_BTD), kept

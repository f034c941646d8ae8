"""A model's weights in the layout of decoding, which reads one token a row at a time.

With few rows, reading the weights takes most of the time. Activations are [width, rows]
and matrices [outputs, inputs]: XLA reads such weights on the CPU up to twice as fast as
in `x @ W`; see benchmarks/matmul.py. On accelerators it makes no difference.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from ovd_jax.models.lora import merge_layers
from ovd_jax.models.sharding import gather_fsdp
from ovd_jax.models.transformer import Layer, Transformer, TransformerConfig, rotate


class DecoderLayer(flax.struct.PyTreeNode):
    """Computes what `Layer` does, with one matrix for all products of the same inputs.

    Queries, keys and values of a key-value head are adjacent, and so are gate and up of
    a channel, so `tp` splits them as it splits a `Layer`.
    """

    attention_norm: nnx.RMSNorm
    mlp_norm: nnx.RMSNorm
    q_norm: nnx.RMSNorm | None
    k_norm: nnx.RMSNorm | None
    qkv_OD: jax.Array
    qkv_bias_O: jax.Array | None
    o_DO: jax.Array
    gate_up_OD: jax.Array
    down_DF: jax.Array
    groups: int = flax.struct.field(pytree_node=False)  # key-value heads
    head_dim: int = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, layer: Layer, config: TransformerConfig) -> "DecoderLayer":
        """The weights of one layer without adapters, in this layout."""

        def by_head(name):
            kernel_DO = getattr(layer, name).kernel[...]
            return kernel_DO.T.reshape(config.num_kv_heads, -1, config.width)

        def bias_by_head(name):
            return getattr(layer, name).bias[...].reshape(config.num_kv_heads, -1)

        names = ("q", "k", "v")
        bias_KO = None
        if config.qkv_bias:
            bias_KO = jnp.concatenate(list(map(bias_by_head, names)), 1)
        gate_up = [layer.gate.kernel[...].T, layer.up.kernel[...].T]
        return cls(
            attention_norm=layer.attention_norm,
            mlp_norm=layer.mlp_norm,
            q_norm=layer.q_norm,
            k_norm=layer.k_norm,
            qkv_OD=_stack(map(by_head, names)),
            qkv_bias_O=None if bias_KO is None else bias_KO.ravel(),
            o_DO=layer.o.kernel[...].T,
            gate_up_OD=_stack(kernel_FD[:, None] for kernel_FD in gate_up),
            down_DF=layer.down.kernel[...].T,
            groups=config.num_kv_heads,
            head_dim=config.head_dim,
        )

    def project(
        self, x_PGD: jax.Array, positions_PG: jax.Array, frequencies: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As `Layer.project`."""
        normed_PGD = self.attention_norm(x_PGD)
        qkv_BO = upright(self.qkv_OD, _columns(normed_PGD)).T
        if self.qkv_bias_O is not None:
            qkv_BO += self.qkv_bias_O.astype(qkv_BO.dtype)[None]
        size = self.head_dim
        qkv = qkv_BO.reshape(*x_PGD.shape[:2], self.groups, -1, size)
        q_PGHE = qkv[..., :-2, :].reshape(*x_PGD.shape[:2], -1, size)
        k_PGKE, v_PGKE = qkv[..., -2, :], qkv[..., -1, :]
        if self.q_norm is not None and self.k_norm is not None:
            q_PGHE, k_PGKE = self.q_norm(q_PGHE), self.k_norm(k_PGKE)
        q_PGHE, k_PGKE = (
            rotate(x, positions_PG, frequencies) for x in (q_PGHE, k_PGKE)
        )
        return q_PGHE, k_PGKE, v_PGKE

    def finish(self, x_PGD: jax.Array, mixed_PGO: jax.Array) -> jax.Array:
        """As `Layer.finish`."""
        shape = x_PGD.shape
        x_PGD = x_PGD + upright(self.o_DO, _columns(mixed_PGO)).T.reshape(shape)
        gate_up_OB = upright(self.gate_up_OD, _columns(self.mlp_norm(x_PGD)))
        gate_up_F2B = gate_up_OB.reshape(-1, 2, gate_up_OB.shape[1])
        hidden_FB = jax.nn.silu(gate_up_F2B[:, 0]) * gate_up_F2B[:, 1]
        return x_PGD + upright(self.down_DF, hidden_FB).T.reshape(shape)


class Decoder(flax.struct.PyTreeNode):
    """All weights, matrices in the compute dtype. Layers are separate arrays: slices of
    stacked weights would be copied at every step."""

    embed: nnx.Embed
    layers: tuple[DecoderLayer, ...]
    norm: nnx.RMSNorm
    head_VD: jax.Array
    config: TransformerConfig = flax.struct.field(pytree_node=False)


@jax.jit
def unstack(model: Transformer) -> Decoder:
    """The model for decoding: adapters merged, matrices cast and gathered over `fsdp`,
    once for all steps."""

    def cast(x):
        return x.astype(model.dtype) if x.ndim > 1 else x

    layers = (
        jax.tree.map(lambda x, n=n: x[n], model.layers)
        for n in range(model.config.num_layers)
    )
    layers = (jax.tree.map(cast, merge_layers(layer)) for layer in layers)
    layers = tuple(DecoderLayer.of(layer, model.config) for layer in layers)
    parts = jax.tree_util.tree_map_with_path(
        gather_fsdp, {"layers": layers, "head": model.head_VD}
    )
    return Decoder(
        model.embed, parts["layers"], model.norm, parts["head"], config=model.config
    )


def upright(weight_OD: jax.Array, x_DB: jax.Array, **options: Any) -> jax.Array:
    """W @ x, [O, B]; the barriers keep the compiler from transposing the product."""
    x_DB = jax.lax.optimization_barrier(x_DB.astype(weight_OD.dtype))
    return jax.lax.optimization_barrier(jnp.matmul(weight_OD, x_DB, **options))


def next_logits(hidden_BD: jax.Array, head_VD: jax.Array) -> jax.Array:
    """Float32 logits [B, V] after the last hidden state."""
    return upright(head_VD, hidden_BD.T, preferred_element_type=jnp.float32).T


def _columns(x_PGD: jax.Array) -> jax.Array:
    """[P, G, D] as [D, P * G]."""
    return x_PGD.reshape(-1, x_PGD.shape[-1]).T


def _stack(parts) -> jax.Array:
    """[K, O, D] arrays joined along O, as one matrix."""
    joined = jnp.concatenate(list(parts), axis=1)
    return joined.reshape(-1, joined.shape[-1])

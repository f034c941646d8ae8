"""LoRA (arXiv:2106.09685), and the trainable part of a model: adapters or all of it."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from ovd_jax.errors import UserError
from ovd_jax.models.transformer import Layer, Linear, Transformer

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")  # the linear maps of a layer


@dataclasses.dataclass(frozen=True)
class Lora:
    """The linear maps with adapters, and the adapters' size.

    Raises UserError for impossible values.
    """

    rank: int  # 0: no adapters, all weights are trained
    alpha: float  # x @ A @ B is scaled by alpha / rank
    targets: tuple[str, ...]

    def __post_init__(self):
        if self.rank < 0:
            raise UserError(f"lora.rank {self.rank} is negative; 0 trains everything.")
        if self.rank and not self.targets:
            raise UserError(f"lora.targets is empty; name some of {_listed()}.")
        for name in self.targets:
            if name not in TARGETS:
                raise UserError(f"lora.targets: {name!r} is not one of {_listed()}.")


def _listed() -> str:
    return ", ".join(TARGETS)


def adapt(model: Transformer, lora: Lora, key: jax.Array) -> Transformer:
    """`model` with new adapters, sharing its arrays; its outputs are unchanged.

    B is zero, and A is drawn as in `peft`: uniform within 1 / sqrt(D). With rank 0 it
    is `model` itself.
    """
    if not lora.rank:
        return model
    model = _copy(model)
    keys = jax.random.split(key, len(lora.targets))
    for name, key in zip(lora.targets, keys, strict=True):
        linear = getattr(model.layers, name)
        layers, inputs, outputs = linear.kernel.shape
        shape, bound = (layers, inputs, lora.rank), inputs**-0.5
        a_NIL = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        linear.lora_a = nnx.Param(a_NIL)
        linear.lora_b = nnx.Param(jnp.zeros((layers, lora.rank, outputs)))
        linear.lora_scale = lora.alpha / lora.rank
    return model


def without_adapters(model: Transformer) -> Transformer:
    """The base model under the adapters, sharing its arrays."""
    model = _copy(model)
    for linear, _, _ in _adapted(model.layers):
        _strip(linear)
    return model


def merge(model: Transformer) -> Transformer:
    """A plain model with the same outputs: W + A @ B instead of W."""
    model = _copy(model)
    model.layers = merge_layers(model.layers)
    return model


def merge_layers(layers: Layer) -> Layer:
    """Like `merge`, for stacked layers or a single one."""
    layers = _copy(layers)
    for linear, a, b in _adapted(layers):
        scaled = a[...] * linear.lora_scale
        # Accelerators would round float32 factors to less.
        change = jnp.matmul(scaled, b[...], precision="highest")
        linear.kernel = nnx.Param(linear.kernel[...] + change)  # float32
        _strip(linear)
    return layers


def trainable(model: Transformer) -> Transformer:
    """The part of `model` that optimizers change: adapters, or all if there are none.

    It has the model's structure with None for each array that is frozen; gradients,
    moments and checkpoints have the same.
    """

    def is_adapter(path, _):
        return "lora_" in jax.tree_util.keystr(path)

    adapters = jax.tree_util.tree_map_with_path(is_adapter, model)
    if not any(jax.tree.leaves(adapters)):
        return model
    return jax.tree.map(lambda x, keep: x if keep else None, model, adapters)


def with_trainable(model: Transformer, part: Transformer) -> Transformer:
    """`model` with `part`, as `trained` gives it, in its place; the rest is shared."""
    return jax.tree.map(lambda old, new: old if new is None else new, model, part)


def _copy(module):
    """A copy of a module with the same arrays."""
    return jax.tree.map(lambda x: x, module)


def _adapted(layers: Layer) -> list[tuple[Linear, nnx.Param, nnx.Param]]:
    """(map, A, B) of the linear maps with adapters."""
    linears = [getattr(layers, name) for name in TARGETS]
    return [(x, x.lora_a, x.lora_b) for x in linears if x.lora_a is not None]


def _strip(linear: Linear) -> None:
    linear.lora_a, linear.lora_b, linear.lora_scale = None, None, 0.0

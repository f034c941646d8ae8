"""Where arrays lie on the mesh: a table for parameters, and one rule for rows.

The axes of the mesh: `data` splits rows (packs, prompts); `fsdp` splits rows too, and
every matrix into parts that are gathered while they are used; `tp` splits heads, the
mlp's width and the vocabulary. Outside of `jax.set_mesh` all functions here that go by
the mesh leave arrays as they are.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ovd_jax.errors import UserError

Array = jax.Array | np.ndarray  # on the devices, or still the host's
Tree = TypeVar("Tree")  # of arrays
AXES = ("data", "fsdp", "tp")
ROWS = P(("data", "fsdp"))  # of whatever has a row an example
RULES = (  # parameter path -> mesh axes; the first match wins; N leads in the layers
    (r"embedding|\bhead\b", P("tp", "fsdp")),  # VD
    (r"\b(q|k|v|gate|up)/kernel", P(None, "fsdp", "tp")),  # NDF
    (r"\b(o|down)/kernel", P(None, "tp", "fsdp")),  # NFD
    (r"\b(q|k|v|gate|up)/lora_a", P(None, "fsdp", None)),  # NDR
    (r"\b(q|k|v|gate|up)/lora_b", P(None, None, "tp")),  # NRF
    (r"\b(o|down)/lora_a", P(None, "tp", None)),  # NFR
    (r"\b(o|down)/lora_b", P(None, None, "fsdp")),  # NRD
    (r"\b(qkv_OD|gate_up_OD)", P("tp", None)),  # of sampling/decoder.py
    (r"\b(o_DO|down_DF)", P(None, "tp")),
    (r"\bqkv_bias_O", P("tp")),
    (r"scale|bias|step|count|finite", P()),
)


def make_mesh(
    *,
    data: int,
    fsdp: int,
    tp: int,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> jax.sharding.Mesh:
    """All devices as `data` x `fsdp` x `tp`; one of them may be -1, for the rest.

    Raises UserError if their product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes((data, fsdp, tp), len(devices))
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, kinds, devices=devices)


def mesh_sizes(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """The sizes of the axes with -1 filled in; UserError unless they make `count`."""
    text = " x ".join(f"{name} {size}" for name, size in zip(AXES, sizes, strict=True))
    if sum(size == -1 for size in sizes) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(f"mesh {text}: sizes are at least 1, and one may be -1.")
    rest = count // math.prod(size for size in sizes if size != -1)
    filled = tuple(rest if size == -1 else size for size in sizes)
    if math.prod(filled) != count:
        raise UserError(
            f"mesh {text} does not come to the {count} devices there are; change "
            "config.mesh (-1 in one place: the rest)."
        )
    return filled


def spec_for(path: tuple, leaf: jax.Array) -> P:
    """The partition of the parameter at `path`. Raises UserError if no rule covers
    it."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, spec in RULES:
        if re.search(pattern, name):
            return spec
    raise UserError(
        f"No sharding rule matches {name!r}, shape {leaf.shape}; add one to RULES."
    )


def shardings(tree: Any, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> Any:
    """The sharding of every array of a model or a `TrainState`.

    An optimizer's moments follow their parameter, whose path ends theirs. Raises
    UserError for a parameter without a rule, and if an axis of the mesh does not divide
    its dimension: nothing is padded.
    """

    def sharding(path, leaf):
        spec = spec_for(path, leaf)
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis and size % mesh.shape[axis]:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise UserError(
                    f"{name} of shape {leaf.shape}: mesh axis {axis}="
                    f"{mesh.shape[axis]} does not divide {size}; set config.mesh."
                    f"{axis} to a divisor of it."
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def lay_out(tree: Tree) -> Tree:
    """A model or a `TrainState`, under jit, sharded over the mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))


def check_heads(num_kv_heads: int, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if `tp` would divide a key-value head."""
    if num_kv_heads % mesh.shape["tp"]:
        raise UserError(
            f"mesh axis tp={mesh.shape['tp']} does not divide the model's "
            f"{num_kv_heads} key-value heads; set config.mesh.tp to a divisor of it, "
            "and fsdp or data to the rest."
        )


def row_shards() -> int:
    """The number of shards of rows; numbers of rows must be a multiple of it."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return sizes.get("data", 1) * sizes.get("fsdp", 1)


def platform() -> str:
    """The platform of the program being traced: cpu, gpu or tpu."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def split_rows(x: jax.Array) -> jax.Array:
    """`x`, under jit, split by rows; the compiler chooses the other axes.

    Needed where the compiler would follow the weights' `fsdp` and gather rows instead
    of weights.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    rest = (P.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, P(*ROWS, *rest))


def look_up(table_VD: jax.Array, tokens: jax.Array) -> jax.Array:
    """The rows of an embedding for `tokens` [rows, ...], under jit.

    A device holds only its shard of the table: there it looks up the tokens of its
    `fsdp` neighbours too, and sends them the results.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return table_VD[tokens]

    def run(table_VD, ids_V, tokens):
        tokens = jax.lax.all_gather(tokens, "fsdp", tiled=True)
        places = tokens - ids_V[0]
        is_here = (places >= 0) & (places < len(ids_V))
        found = table_VD[jnp.where(is_here, places, 0)]
        found = jax.lax.psum(jnp.where(is_here[..., None], found, 0), "tp")
        last = found.ndim - 1
        return jax.lax.all_to_all(found, "fsdp", 0, last, tiled=True)

    run = jax.shard_map(run, in_specs=(P("tp", "fsdp"), P("tp"), ROWS), out_specs=ROWS)
    return run(table_VD, jnp.arange(len(table_VD)), tokens)


def gather_fsdp(path: tuple, x: jax.Array) -> jax.Array:
    """A parameter, under jit, split over `tp` only; that of one layer has no N."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, without_fsdp(path, x))


def without_fsdp(path: tuple, x: jax.Array) -> P:
    """The partition of the parameter at `path` over `tp` only."""
    return P(*(axis if axis == "tp" else None for axis in spec_for(path, x)[-x.ndim :]))


def put_rows(tree: Tree) -> Tree:
    """Host arrays, equal on every process, as arrays split by rows."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return tree
    sharding = NamedSharding(mesh, ROWS)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, x.shape), tree
    )


def fetch(tree: Any) -> Any:
    """`tree` as NumPy arrays on every process; all processes must call it."""

    def whole(x):
        if x.is_fully_addressable or x.is_fully_replicated:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))

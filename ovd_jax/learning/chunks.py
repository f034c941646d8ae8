"""Loops over chunks of positions, by every device on its part of rows and vocabulary.

The M positions are processed in chunks of C. Under a mesh each device has the M of its
rows and the V of its `tp` part.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

VOCAB = P("tp")  # of the head's rows and their ids
HEAD = P("tp", "fsdp")  # of the head's gradient


class Axes(NamedTuple):
    """The mesh axes that split rows and vocabulary; empty without a mesh."""

    rows: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()


def on_each_device(in_specs: Any, out_specs: Any) -> Callable[[Callable], Callable]:
    """Decorates `function(axes, ...)`, which then runs on each device's shards; on all
    arrays without a mesh."""

    def decorate(function: Callable) -> Callable:
        if jax.sharding.get_abstract_mesh().empty:
            return functools.partial(function, Axes())
        return jax.shard_map(
            functools.partial(function, Axes(("data", "fsdp"), ("tp",))),
            in_specs=in_specs, out_specs=out_specs, check_vma=False,
        )  # fmt: skip

    return decorate


def chunks(tree: Any, chunk: int) -> Any:
    """Every [M, ...] array as [chunks, C, ...], padded with zeros. Raises
    AssertionError unless all have one M: a single position would be everyone's."""
    chex.assert_equal_shape_prefix(jax.tree.leaves(tree), 1)

    def cut(x):
        size = min(chunk, len(x))
        x = jnp.pad(x, ((0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)))
        return x.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, tree)


def unchunked(tree: Any, length: int) -> Any:
    """The [M, ...] arrays that `chunks` divided."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], tree)

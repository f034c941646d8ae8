"""A small adapted model and its objective."""

import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.learning.update import (
    imitation_objective,
    optimizer,
)
from ovd_jax.models.lora import TARGETS, Lora, adapt
from ovd_jax.models.transformer import Transformer

LORA = Lora(rank=3, alpha=6.0, targets=TARGETS)


TX = optimizer(
    learning_rate=1e-2, schedule="constant", warmup_steps=0, total_steps=9,
    weight_decay=0.1, b1=0.9, b2=0.99, grad_clip=1.0,
)  # fmt: skip


rng = np.random.default_rng(0)


TOKENS_BT = rng.integers(0, 26, (4, 9)).astype(np.int32)


WEIGHTS_BT = rng.random((4, 9)).astype(np.float32)


forward = jax.jit(Transformer.__call__)


def assert_close(actual, expected, tolerance=1e-5):
    """Errors are measured by the largest number of an array: the order of a sum moves
    small ones by as much."""
    atol = tolerance * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=tolerance)


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def adapted_to(model, lora=LORA, *, seed=0):
    """`model` with adapters in which B is as large as A."""

    def draw(path, leaf):
        if "lora_" not in jax.tree_util.keystr(path):
            return leaf
        values = np.random.default_rng(seed).standard_normal(leaf.shape)
        return jnp.asarray(0.3 * values, jnp.float32)

    model = adapt(model, lora, jax.random.key(seed))
    return jax.tree_util.tree_map_with_path(draw, model)


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def objective(model, part, *, remat="none"):
    return imitation_objective(model, part, chunk=5, remat=remat)

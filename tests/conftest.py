"""Shared by all tests: the CPU, strict shapes, and one tiny model."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is first imported

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.models.transformer import Transformer, TransformerConfig

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # compiles twice as fast


@pytest.fixture(scope="session")
def config() -> TransformerConfig:
    """Two layers in which no two axes have the same size by accident."""
    return TransformerConfig(
        vocab_size=26, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=6,
        mlp_width=20, qkv_bias=True, tied_head=False, max_positions=64,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_model():
    """`make_model(config, seed=, dtype=)`: weights large enough that logits differ by
    several nats, so that a test that compares them can fail."""

    def make(config, *, seed=0, dtype=jnp.float32) -> Transformer:
        rng = np.random.default_rng(seed)

        def draw(path, leaf):
            offset = float("scale" in jax.tree_util.keystr(path))
            weights = offset + 0.4 * rng.standard_normal(leaf.shape)
            return jnp.asarray(weights.astype(np.float32))

        abstract = jax.eval_shape(lambda: Transformer(config, jax.random.key(0), dtype))
        return jax.tree_util.tree_map_with_path(draw, abstract)

    return make


@pytest.fixture(scope="session")
def model(config, make_model) -> Transformer:
    """The tiny model. Donating it would break every later test: make your own then."""
    return make_model(config)


@pytest.fixture
def optimized():
    """Compiles as users do, for a test in which a real model computes for long."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)

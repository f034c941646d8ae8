"""The machine's limits as XLA reaches them: a large matmul, and a pass over memory."""

import jax
import jax.numpy as jnp
import timing

SIZE = 4096
READ = 2**28  # floats: 1 GiB

matrix = jnp.ones((SIZE, SIZE))
product = jax.jit(jnp.matmul)
matmul_s = timing.seconds(lambda _: product(matrix, matrix).block_until_ready(), 5)
numbers = jnp.ones((READ // 2**14, 2**14))
vector = jnp.ones(2**14)
read_s = timing.seconds(lambda _: product(numbers, vector).block_until_ready(), 5)
timing.report(
    matmul_gflop_s=2 * SIZE**3 / matmul_s / 1e9, read_gb_s=4 * READ / read_s / 1e9
)

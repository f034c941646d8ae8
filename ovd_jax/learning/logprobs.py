"""Log-probabilities of given tokens without a [B, T, V] array."""

import jax
import jax.numpy as jnp

from ovd_jax.models.transformer import Layout, Transformer


def token_logprobs(
    model: Transformer,
    tokens_BT: jax.Array,
    layout: Layout | None = None,
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """(log p(token t | tokens before t), entropy in nats of that p), each [B, T]
    float32.

    `p` is the distribution that was sampled from: softmax(logits / temperature). The
    first token of a row has no context; both its numbers are 0.
    """
    inputs = jax.tree.map(lambda x: x[:, :-1], (tokens_BT, layout))
    hidden_BTD = model.hidden(*inputs, remat=remat)
    logprobs, entropies = linear_logprobs(
        hidden_BTD.reshape(-1, hidden_BTD.shape[-1]),
        model.head_VD,
        tokens_BT[:, 1:].reshape(-1),
        temperature=temperature,
        chunk=chunk,
    )
    shape = (tokens_BT.shape[0], tokens_BT.shape[1] - 1)

    def shifted(x):
        return jnp.pad(x.reshape(shape), ((0, 0), (1, 0)))

    return shifted(logprobs), shifted(entropies)


def linear_logprobs(hidden_MD, head_VD, targets_M, *, temperature: float, chunk: int):
    """Log-probability of each target and entropy, both [M], `chunk` rows at a time.

    Only one [chunk, V] block of logits is alive at any time, in the backward pass too,
    which computes it again.
    """
    rows = hidden_MD.shape[0]
    chunk = min(chunk, rows)
    padding = -rows % chunk
    hidden = jnp.pad(hidden_MD, ((0, padding), (0, 0))).reshape(
        -1, chunk, hidden_MD.shape[1]
    )
    targets = jnp.pad(targets_M, (0, padding)).reshape(-1, chunk)

    @jax.checkpoint
    def block(inputs):
        hidden_CD, targets_C = inputs
        logits_CV = jnp.einsum(
            "CD,VD->CV", hidden_CD, head_VD, preferred_element_type=jnp.float32
        )
        logprobs_CV = jax.nn.log_softmax(logits_CV / temperature)
        entropy_C = -jnp.sum(jnp.exp(logprobs_CV) * logprobs_CV, axis=-1)
        picked_C = jnp.take_along_axis(logprobs_CV, targets_C[:, None], axis=-1)[:, 0]
        return picked_C, entropy_C

    logprobs, entropies = jax.lax.map(block, (hidden, targets))
    return logprobs.reshape(-1)[:rows], entropies.reshape(-1)[:rows]

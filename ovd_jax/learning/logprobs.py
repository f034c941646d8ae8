"""Log-probabilities of given tokens, and losses on them, without a [M, V] array.

Axes: M positions, C of them in a chunk, D width, V vocabulary.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def token_logprobs(
    hidden_MD, head_VD, targets_M, *, temperature: float = 1.0, chunk: int = 1024
) -> tuple[jax.Array, jax.Array]:
    """(log p(target), entropy in nats of p), both [M] float32, for p =
    softmax(logits / temperature), the distribution that was sampled from.

    One [chunk, V] block of logits is alive at any time.
    """

    def block(_, inputs):
        _, logprobs_C, entropies_C = _score(*inputs, head_VD, temperature)
        return None, (logprobs_C, entropies_C)

    inputs = _chunks((hidden_MD, targets_M), chunk)
    _, outputs = jax.lax.scan(block, None, inputs)
    return jax.tree.map(lambda x: x.reshape(-1)[: len(targets_M)], outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 5, 6))
def token_loss(
    loss_fn: Callable,
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    targets_M: jax.Array,
    inputs,
    temperature: float,
    chunk: int,
):
    """The sum over tokens of `loss_fn`, differentiable by `hidden_MD` and `head_VD`.

    `loss_fn(logprobs_C, entropies_C, inputs_C) -> (sum of losses, dict of sums)`, where
    `inputs` is any tree of [M, ...] arrays. As the result is one number, its gradient
    is made on the way forward, chunk by chunk: no logits are kept and none are computed
    twice.
    """
    part = _chunks((hidden_MD, targets_M, inputs), chunk)

    def block(total, part):
        hidden_CD, targets_C, inputs_C = part
        _, *numbers = _score(hidden_CD, targets_C, head_VD, temperature)
        return jax.tree.map(jnp.add, total, loss_fn(*numbers, inputs_C)), None

    return jax.lax.scan(block, _zeros(loss_fn, part[2], chunk), part)[0]


def _forward(loss_fn, hidden_MD, head_VD, targets_M, inputs, temperature, chunk):
    part = _chunks((hidden_MD, targets_M, inputs), chunk)

    def block(carry, part):
        total, head_grad_VD = carry
        hidden_CD, targets_C, inputs_C = part
        all_CV, logprobs_C, entropies_C = _score(
            hidden_CD, targets_C, head_VD, temperature
        )
        loss, vjp, sums = jax.vjp(
            lambda *numbers: loss_fn(*numbers, inputs_C),
            logprobs_C, entropies_C, has_aux=True,
        )  # fmt: skip
        by_logprob_C, by_entropy_C = vjp(jnp.ones_like(loss))
        probs_CV = jnp.exp(all_CV)
        is_target_CV = jnp.arange(all_CV.shape[1])[None] == targets_C[:, None]
        grad_CV = by_logprob_C[:, None] * (is_target_CV - probs_CV)
        surprise_CV = all_CV + entropies_C[:, None]
        grad_CV -= by_entropy_C[:, None] * probs_CV * surprise_CV
        grad_CV = (grad_CV / temperature).astype(hidden_CD.dtype)
        head_grad_VD += jnp.einsum(
            "CV,CD->VD", grad_CV, hidden_CD, preferred_element_type=jnp.float32
        )
        total = jax.tree.map(jnp.add, total, (loss, sums))
        return (total, head_grad_VD), grad_CV @ head_VD

    zeros = (_zeros(loss_fn, part[2], chunk), jnp.zeros(head_VD.shape, jnp.float32))
    (total, head_grad_VD), hidden_grad = jax.lax.scan(block, zeros, part)
    hidden_grad_MD = hidden_grad.reshape(-1, hidden_MD.shape[1])[: len(hidden_MD)]
    return total, (hidden_grad_MD, head_grad_VD.astype(head_VD.dtype))


def _backward(loss_fn, temperature, chunk, grads, cotangents):
    scale, _ = cotangents
    return *((grad * scale).astype(grad.dtype) for grad in grads), None, None


token_loss.defvjp(_forward, _backward)


def _score(hidden_CD, targets_C, head_VD, temperature: float):
    """Log-probabilities of all tokens [C, V], of the targets [C], entropies [C]."""
    logits_CV = jnp.einsum(
        "CD,VD->CV", hidden_CD, head_VD, preferred_element_type=jnp.float32
    )
    all_CV = jax.nn.log_softmax(logits_CV / temperature)
    entropies_C = -jnp.sum(jnp.exp(all_CV) * all_CV, axis=-1)
    logprobs_C = jnp.take_along_axis(all_CV, targets_C[:, None], axis=-1)[:, 0]
    return all_CV, logprobs_C, entropies_C


def _chunks(tree, chunk: int):
    """Every [M, ...] array as [chunks, C, ...], zeros at the end."""

    def cut(x):
        size = min(chunk, len(x))
        x = jnp.pad(x, ((0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)))
        return x.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _zeros(loss_fn, inputs, chunk: int):
    """Zeros of what `loss_fn` returns."""
    first = jax.tree.map(lambda x: x[0], inputs)
    numbers = jax.ShapeDtypeStruct(jax.tree.leaves(first)[0].shape[:1], jnp.float32)
    shapes = jax.eval_shape(loss_fn, numbers, numbers, first)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

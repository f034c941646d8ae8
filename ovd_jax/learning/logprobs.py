"""Log-probabilities of given tokens, and losses on them, without a [M, V] array.

The M positions are processed in chunks of C. Under a mesh each device has the M of its
rows and the V of its `tp` part, and holds one [C, V / tp] block at a time. The compiler
alone would cut chunks across the rows of all devices and sum logits over `fsdp`, so
every device runs its own loop here, with explicit collectives.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ovd_jax.learning.chunks import (
    HEAD,
    VOCAB,
    Axes,
    chunks,
    on_each_device,
    unchunked,
)
from ovd_jax.models.sharding import ROWS

Loss = tuple[jax.Array, dict]  # with sums of metrics by their names
Value = TypeVar("Value")


def custom_vjp(
    *nondiff_argnums: int,
) -> Callable[[Callable[..., Value]], jax.custom_vjp[Value]]:
    """`jax.custom_vjp` as a decorator that keeps the type of the results."""
    decorator: Any = functools.partial(jax.custom_vjp, nondiff_argnums=nondiff_argnums)
    return decorator


@custom_vjp(3, 4)
def token_logprobs(
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    targets: jax.Array,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[jax.Array, jax.Array]:
    """(log p(target), entropy in nats of p [M]), float32, for p = softmax(logits /
    temperature), the distribution that was sampled from.

    `targets` are [M], or [M, A] for A tokens at each position. One [chunk, V] block of
    logits is alive at a time. The backward pass, by `hidden_MD` and `head_VD`, computes
    each block again, so a loss may be any function of all log-probabilities.
    """

    @on_each_device((ROWS, VOCAB, VOCAB, ROWS), ROWS)
    def run(axes, hidden_MD, head_VD, ids_V, targets):
        def block(_, part):
            hidden_CD, targets = part
            score = _score(hidden_CD, targets, head_VD, ids_V, temperature, axes)
            return None, (score.logprobs, score.entropies_C)

        _, outputs = jax.lax.scan(block, None, chunks((hidden_MD, targets), chunk))
        return unchunked(outputs, len(targets))

    return run(hidden_MD, head_VD, jnp.arange(len(head_VD)), targets)


def _logprobs_forward(hidden_MD, head_VD, targets, temperature, chunk):
    outputs = token_logprobs(hidden_MD, head_VD, targets, temperature, chunk)
    return outputs, (hidden_MD, head_VD, targets)


def _logprobs_backward(temperature, chunk, residuals, cotangents):
    @on_each_device((ROWS, VOCAB, VOCAB, ROWS), [ROWS, HEAD])
    def run(axes, hidden_MD, head_VD, ids_V, inputs):
        def grad_of(hidden_CD, inputs_C):
            targets, *by_numbers = inputs_C
            score = _score(hidden_CD, targets, head_VD, ids_V, temperature, axes)
            return (), _logits_grad(score, targets, ids_V, *by_numbers)

        _, *grads = sum_with_grads(
            grad_of, hidden_MD, head_VD, inputs, temperature, chunk, axes
        )
        return grads

    hidden_MD, head_VD, targets = residuals
    inputs = (targets, *cotangents)
    grads = run(hidden_MD, head_VD, jnp.arange(len(head_VD)), inputs)
    return *grads, None


token_logprobs.defvjp(_logprobs_forward, _logprobs_backward)


@custom_vjp(0, 5, 6)
def token_loss(
    loss_fn: Callable,
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    targets_M: jax.Array,
    inputs: Any,
    temperature: float,
    chunk: int,
) -> Loss:
    """The sum of `loss_fn` over tokens, differentiable by `hidden_MD` and `head_VD`.

    `loss_fn(logprobs_C, entropies_C, inputs_C) -> (sum of losses, dict of sums)`, where
    `inputs` is any tree of [M, ...] arrays. The result is one number, so the forward
    pass computes its gradient chunk by chunk: no logits are kept or computed twice.
    """

    @on_each_device((ROWS, VOCAB, VOCAB, ROWS, ROWS), P())
    def run(axes, hidden_MD, head_VD, ids_V, targets_M, inputs):
        def block(total, part):
            hidden_CD, targets_C, inputs_C = part
            score = _score(hidden_CD, targets_C, head_VD, ids_V, temperature, axes)
            new = loss_fn(score.logprobs, score.entropies_C, inputs_C)
            return jax.tree.map(jnp.add, total, new), None

        part = chunks((hidden_MD, targets_M, inputs), chunk)
        total, _ = jax.lax.scan(block, _zeros(loss_fn, part[2]), part)
        return jax.lax.psum(total, axes.rows)

    return run(hidden_MD, head_VD, jnp.arange(len(head_VD)), targets_M, inputs)


def _forward(loss_fn, hidden_MD, head_VD, targets_M, inputs, temperature, chunk):
    @on_each_device((ROWS, VOCAB, VOCAB, ROWS), (P(), ROWS, HEAD))
    def run(axes, hidden_MD, head_VD, ids_V, inputs):
        def grad_of(hidden_CD, inputs_C):
            targets_C, inputs_C = inputs_C
            score = _score(hidden_CD, targets_C, head_VD, ids_V, temperature, axes)
            new, vjp, sums = jax.vjp(
                lambda *numbers: loss_fn(*numbers, inputs_C),
                score.logprobs, score.entropies_C, has_aux=True,
            )  # fmt: skip
            grad_CV = _logits_grad(score, targets_C, ids_V, *vjp(jnp.ones_like(new)))
            return (new, sums), grad_CV

        return sum_with_grads(
            grad_of, hidden_MD, head_VD, inputs, temperature, chunk, axes
        )

    inputs = (targets_M, inputs)
    total, *grads = run(hidden_MD, head_VD, jnp.arange(len(head_VD)), inputs)
    return total, grads


def _backward(loss_fn, temperature, chunk, grads, cotangents):
    scale, _ = cotangents
    return *((grad * scale).astype(grad.dtype) for grad in grads), None, None


token_loss.defvjp(_forward, _backward)


def sum_with_grads(
    grad_of: Callable,
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    inputs: Any,
    temperature: float,
    chunk: int,
    axes: Axes,
) -> tuple[Any, jax.Array, jax.Array]:
    """(sum over chunks, its gradients by `hidden_MD` and `head_VD`) on one device.

    `grad_of(hidden_CD, inputs_C)` returns a chunk's tree of sums and the gradient of
    its loss by the chunk's logits / temperature.
    """

    def block(carry, part):
        total, head_grad_VD = carry
        hidden_CD, inputs_C = part
        new, logits_grad_CV = grad_of(hidden_CD, inputs_C)
        grad_CV = (logits_grad_CV / temperature).astype(hidden_CD.dtype)
        head_grad_VD += jnp.einsum(
            "CV,CD->VD", grad_CV, hidden_CD, preferred_element_type=jnp.float32
        )
        total = jax.tree.map(jnp.add, total, new)
        return (total, head_grad_VD), grad_CV @ head_VD

    part = chunks((hidden_MD, inputs), chunk)
    first = jax.tree.map(lambda x: x[0], part)
    shapes, _ = jax.eval_shape(grad_of, *first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zeros = (zeros, jnp.zeros(head_VD.shape, jnp.float32))
    (total, head_grad_VD), hidden_grad = jax.lax.scan(block, zeros, part)
    return (
        jax.lax.psum(total, axes.rows),
        jax.lax.psum(unchunked(hidden_grad, len(hidden_MD)), axes.vocab),
        _sum_head(head_grad_VD, axes).astype(head_VD.dtype),
    )


class _Score(NamedTuple):
    """The scores of a chunk; V is this device's part, all else covers the whole
    vocabulary."""

    all_CV: jax.Array  # log-probabilities
    logprobs: jax.Array  # of the targets, [C] or [C, A]
    entropies_C: jax.Array


def _score(hidden_CD, targets, head_VD, ids_V, temperature, axes: Axes) -> _Score:
    """Scores a chunk in float32, with two collectives over the vocabulary."""
    logits_CV = shifted_logits(hidden_CD, head_VD, temperature, axes)
    exp_CV = jnp.exp(logits_CV)
    picked = _picked(logits_CV, targets, ids_V)
    sums = (exp_CV.sum(axis=-1), (exp_CV * logits_CV).sum(axis=-1), picked)
    sums = jax.lax.psum(jnp.column_stack(sums), axes.vocab)
    total_C, weighted_C, picked = sums[:, 0], sums[:, 1], sums[:, 2:]
    log_total_C1 = jnp.log(total_C)[:, None]
    return _Score(
        logits_CV - log_total_C1,
        (picked - log_total_C1).reshape(targets.shape),
        log_total_C1[:, 0] - weighted_C / total_C,
    )


def shifted_logits(
    hidden_CD: jax.Array, head_VD: jax.Array, temperature: float, axes: Axes
) -> jax.Array:
    """Float32 logits / temperature, minus the largest of the whole vocabulary."""
    logits_CV = jnp.einsum(
        "CD,VD->CV", hidden_CD, head_VD, preferred_element_type=jnp.float32
    )
    logits_CV /= temperature
    return logits_CV - jax.lax.pmax(logits_CV.max(axis=-1, keepdims=True), axes.vocab)


def _picked(logits_CV, targets, ids_V) -> jax.Array:
    """The targets' logits; 0 for targets on other devices."""
    if targets.ndim == 1:
        return jnp.where(ids_V[None] == targets[:, None], logits_CV, 0.0).sum(axis=-1)
    places = targets - ids_V[0]
    is_here = (places >= 0) & (places < len(ids_V))
    picked = jnp.take_along_axis(logits_CV, jnp.where(is_here, places, 0), axis=1)
    return jnp.where(is_here, picked, 0.0)


def _put_back(values, targets, ids_V) -> jax.Array:
    """[C, V]: `values` at their targets, 0 elsewhere; the transpose of `_picked`."""
    if targets.ndim == 1:
        return jnp.where(ids_V[None] == targets[:, None], values[:, None], 0.0)
    places = targets - ids_V[0]
    places = jnp.where(places < 0, len(ids_V), places)  # not from the end: dropped
    rows = jnp.arange(len(targets))[:, None]
    zeros_CV = jnp.zeros((len(targets), len(ids_V)), values.dtype)
    return zeros_CV.at[rows, places].add(values, mode="drop")


def _logits_grad(score: _Score, targets, ids_V, by_logprobs, by_entropy_C):
    """The gradient by a chunk's logits / temperature, from those by its
    log-probabilities and entropies."""
    probs_CV = jnp.exp(score.all_CV)
    total_C = by_logprobs.reshape(len(targets), -1).sum(axis=1)
    surprise_CV = score.all_CV + score.entropies_C[:, None]
    spread_CV = total_C[:, None] + by_entropy_C[:, None] * surprise_CV
    return _put_back(by_logprobs, targets, ids_V) - probs_CV * spread_CV


def _sum_head(grad_VD, axes: Axes) -> jax.Array:
    """The head's gradient summed over the rows of all devices, in the head's layout."""
    if not axes.rows:
        return grad_VD
    grad_VD = jax.lax.psum(grad_VD, "data")
    return jax.lax.psum_scatter(grad_VD, "fsdp", scatter_dimension=1, tiled=True)


def _zeros(loss_fn, inputs):
    """Zeros in the structure that `loss_fn` returns."""
    first = jax.tree.map(lambda x: x[0], inputs)
    numbers = jax.ShapeDtypeStruct(jax.tree.leaves(first)[0].shape[:1], jnp.float32)
    shapes = jax.eval_shape(loss_fn, numbers, numbers, first)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

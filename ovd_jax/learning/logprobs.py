"""Log-probabilities of given tokens, and losses on them, without a [M, V] array.

Axes: M positions, C of them in a chunk, D width, V vocabulary. Under a mesh each device
has the M of its rows and the V of its `tp` part: what it holds at once is [C, V / tp].
The compiler, left alone, would cut chunks across the rows of all devices and add up
logits over `fsdp`; so every device runs its own loop here, and says when they meet.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ovd_jax.learning.sharding import ROWS

_VOCAB = P("tp")  # of the head, and of the numbers of its rows
_HEAD = P("tp", "fsdp")  # of the head's gradient


def token_logprobs(
    hidden_MD, head_VD, targets_M, *, temperature: float = 1.0, chunk: int = 1024
) -> tuple[jax.Array, jax.Array]:
    """(log p(target), entropy in nats of p), both [M] float32, for p =
    softmax(logits / temperature), the distribution that was sampled from.

    One [chunk, V] block of logits is alive at any time.
    """

    def run(axes, hidden_MD, head_VD, ids_V, targets_M):
        def block(_, inputs):
            part = _score(*inputs, head_VD, ids_V, temperature, axes)
            return None, (part.logprobs_C, part.entropies_C)

        _, outputs = jax.lax.scan(block, None, _chunks((hidden_MD, targets_M), chunk))
        return jax.tree.map(lambda x: x.reshape(-1)[: len(targets_M)], outputs)

    run = _on_each_device(run, (ROWS, _VOCAB, _VOCAB, ROWS), ROWS)
    return run(hidden_MD, head_VD, jnp.arange(len(head_VD)), targets_M)


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

    def run(axes, hidden_MD, head_VD, ids_V, targets_M, inputs):
        part = _chunks((hidden_MD, targets_M, inputs), chunk)

        def block(total, part):
            hidden_CD, targets_C, inputs_C = part
            score = _score(hidden_CD, targets_C, head_VD, ids_V, temperature, axes)
            new = loss_fn(score.logprobs_C, score.entropies_C, inputs_C)
            return jax.tree.map(jnp.add, total, new), None

        total, _ = jax.lax.scan(block, _zeros(loss_fn, part[2]), part)
        return jax.lax.psum(total, axes.rows)

    run = _on_each_device(run, (ROWS, _VOCAB, _VOCAB, ROWS, ROWS), P())
    return run(hidden_MD, head_VD, jnp.arange(len(head_VD)), targets_M, inputs)


def _forward(loss_fn, hidden_MD, head_VD, targets_M, inputs, temperature, chunk):
    def run(axes, hidden_MD, head_VD, ids_V, targets_M, inputs):
        part = _chunks((hidden_MD, targets_M, inputs), chunk)

        def block(carry, part):
            total, head_grad_VD = carry
            hidden_CD, targets_C, inputs_C = part
            score = _score(hidden_CD, targets_C, head_VD, ids_V, temperature, axes)
            new, logits_grad_CV = _logits_grad(score, loss_fn, inputs_C)
            grad_CV = (logits_grad_CV / temperature).astype(hidden_CD.dtype)
            head_grad_VD += jnp.einsum(
                "CV,CD->VD", grad_CV, hidden_CD, preferred_element_type=jnp.float32
            )
            total = jax.tree.map(jnp.add, total, new)
            return (total, head_grad_VD), grad_CV @ head_VD

        zeros = (_zeros(loss_fn, part[2]), jnp.zeros(head_VD.shape, jnp.float32))
        (total, head_grad_VD), hidden_grad = jax.lax.scan(block, zeros, part)
        hidden_grad_MD = hidden_grad.reshape(-1, hidden_MD.shape[1])[: len(hidden_MD)]
        return (
            jax.lax.psum(total, axes.rows),
            jax.lax.psum(hidden_grad_MD, axes.vocab),
            _sum_head(head_grad_VD, axes).astype(head_VD.dtype),
        )

    run = _on_each_device(
        run, (ROWS, _VOCAB, _VOCAB, ROWS, ROWS), (P(), ROWS, _HEAD)
    )  # fmt: skip
    total, *grads = run(
        hidden_MD, head_VD, jnp.arange(len(head_VD)), targets_M, inputs
    )  # fmt: skip
    return total, grads


def _backward(loss_fn, temperature, chunk, grads, cotangents):
    scale, _ = cotangents
    return *((grad * scale).astype(grad.dtype) for grad in grads), None, None


token_loss.defvjp(_forward, _backward)


class _Axes(NamedTuple):
    """The mesh axes that split rows and vocabulary: none, without a mesh."""

    rows: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()


def _on_each_device(function: Callable, in_specs, out_specs) -> Callable:
    """`function(axes, ...)` of what each device has; of everything, without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return functools.partial(function, _Axes())
    return jax.shard_map(
        functools.partial(function, _Axes(("data", "fsdp"), ("tp",))),
        in_specs=in_specs, out_specs=out_specs, check_vma=False,
    )  # fmt: skip


class _Score(NamedTuple):
    """A chunk under the head; V is the device's part, the rest is of the whole."""

    all_CV: jax.Array  # log-probabilities
    is_target_CV: jax.Array
    logprobs_C: jax.Array  # of the targets
    entropies_C: jax.Array


def _score(hidden_CD, targets_C, head_VD, ids_V, temperature, axes: _Axes) -> _Score:
    """Float32; the devices of a vocabulary meet twice."""
    logits_CV = jnp.einsum(
        "CD,VD->CV", hidden_CD, head_VD, preferred_element_type=jnp.float32
    )
    logits_CV /= temperature
    logits_CV -= jax.lax.pmax(logits_CV.max(axis=-1, keepdims=True), axes.vocab)
    is_target_CV = ids_V[None] == targets_C[:, None]
    exp_CV = jnp.exp(logits_CV)
    summands = (exp_CV, exp_CV * logits_CV, jnp.where(is_target_CV, logits_CV, 0.0))
    sums = [x.sum(axis=-1) for x in summands]
    total_C, weighted_C, picked_C = jax.lax.psum(jnp.stack(sums), axes.vocab)
    log_total_C = jnp.log(total_C)
    return _Score(
        logits_CV - log_total_C[:, None],
        is_target_CV,
        picked_C - log_total_C,
        log_total_C - weighted_C / total_C,
    )


def _logits_grad(score: _Score, loss_fn: Callable, inputs_C):
    """What `loss_fn` gives, and its gradient by the chunk's logits / temperature."""
    loss, vjp, sums = jax.vjp(
        lambda *numbers: loss_fn(*numbers, inputs_C),
        score.logprobs_C, score.entropies_C, has_aux=True,
    )  # fmt: skip
    by_logprob_C, by_entropy_C = vjp(jnp.ones_like(loss))
    probs_CV = jnp.exp(score.all_CV)
    grad_CV = by_logprob_C[:, None] * (score.is_target_CV - probs_CV)
    surprise_CV = score.all_CV + score.entropies_C[:, None]
    return (loss, sums), grad_CV - by_entropy_C[:, None] * probs_CV * surprise_CV


def _sum_head(grad_VD, axes: _Axes) -> jax.Array:
    """The head's gradient over the rows of all devices, in the layout of the head."""
    if not axes.rows:
        return grad_VD
    grad_VD = jax.lax.psum(grad_VD, "data")
    return jax.lax.psum_scatter(grad_VD, "fsdp", scatter_dimension=1, tiled=True)


def _chunks(tree, chunk: int):
    """Every [M, ...] array as [chunks, C, ...], zeros at the end."""

    def cut(x):
        size = min(chunk, len(x))
        x = jnp.pad(x, ((0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)))
        return x.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _zeros(loss_fn, inputs):
    """Zeros of what `loss_fn` returns."""
    first = jax.tree.map(lambda x: x[0], inputs)
    numbers = jax.ShapeDtypeStruct(jax.tree.leaves(first)[0].shape[:1], jnp.float32)
    shapes = jax.eval_shape(loss_fn, numbers, numbers, first)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

"""Token-level distillation: divergences between the vocabularies of two models.

`dense` compares the full vocabulary with both models' [M, V] arrays; `chunked` with one
[C, V] block of either at a time; `top_k` compares the teacher's k likeliest tokens, and
all others as one. D and U are the widths of student and teacher.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from ovd_jax.learning.batch import Batch, TopK
from ovd_jax.learning.chunks import (
    HEAD,
    VOCAB,
    Axes,
    chunks,
    on_each_device,
    unchunked,
)
from ovd_jax.learning.logprobs import (
    Loss,
    custom_vjp,
    shifted_logits,
    sum_with_grads,
    token_logprobs,
)
from ovd_jax.learning.losses import behavior_logprobs, check_shapes, policy_loss
from ovd_jax.learning.update import completion_hidden
from ovd_jax.models.sharding import ROWS, Array, P
from ovd_jax.models.transformer import Transformer

_LEAST_REST = 1e-7  # smallest probability of all other tokens that float32 resolves


def dense_divergence(
    terms_of: Callable,
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    teacher_hidden_MU: jax.Array,
    teacher_head_VU: jax.Array,
    weights_M: jax.Array,
    temperature: float,
) -> Loss:
    """The weighted sum over positions of a divergence: (loss, sums of metrics).

    Both models' log-probabilities [M, V] are kept for the backward pass.
    """

    def log_softmax(hidden_MD, head_VD):
        logits_MV = jnp.einsum(
            "MD,VD->MV", hidden_MD, head_VD, preferred_element_type=jnp.float32
        )
        return jax.nn.log_softmax(logits_MV / temperature)

    student_MV = log_softmax(hidden_MD, head_VD)
    teacher_MV = log_softmax(teacher_hidden_MU, teacher_head_VU)
    chex.assert_equal_shape([student_MV, teacher_MV])
    divergence_M = terms_of(student_MV, jax.lax.stop_gradient(teacher_MV)).sum(axis=-1)
    entropy_M = -jnp.sum(jnp.exp(student_MV) * student_MV, axis=-1)
    return weighted(divergence_M, entropy_M, weights_M)


@custom_vjp(0, 6, 7)
def chunked_divergence(
    terms_of: Callable,
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    teacher_hidden_MU: jax.Array,
    teacher_head_VU: jax.Array,
    weights_M: jax.Array,
    temperature: float,
    chunk: int,
) -> Loss:
    """`dense_divergence` without an array over positions and vocabulary.

    The forward pass computes the gradient, by `hidden_MD` and `head_VD` only.
    """
    return _forward(
        terms_of, hidden_MD, head_VD, teacher_hidden_MU, teacher_head_VU, weights_M,
        temperature, chunk,
    )[0]  # fmt: skip


def _forward(
    terms_of, hidden_MD, head_VD, teacher_hidden_MU, teacher_head_VU, weights_M,
    temperature, chunk,
):  # fmt: skip
    chex.assert_equal_shape_prefix([head_VD, teacher_head_VU], 1)

    @on_each_device((ROWS, VOCAB, VOCAB, ROWS), (P(), ROWS, HEAD))
    def run(axes, hidden_MD, head_VD, teacher_head_VU, inputs):
        def grad_of(hidden_CD, inputs_C):
            teacher_hidden_CU, weights_C = inputs_C
            student_CV = _log_softmax(hidden_CD, head_VD, temperature, axes)
            teacher_CV = _log_softmax(
                teacher_hidden_CU, teacher_head_VU, temperature, axes
            )
            return _weighted_with_grad(
                lambda x: terms_of(x, teacher_CV), student_CV, weights_C, axes
            )

        return sum_with_grads(
            grad_of, hidden_MD, head_VD, inputs, temperature, chunk, axes
        )

    inputs = (teacher_hidden_MU, weights_M)
    total, *grads = run(hidden_MD, head_VD, teacher_head_VU, inputs)
    return total, grads


def _backward(terms_of, temperature, chunk, grads, cotangents):
    scale, _ = cotangents
    grads = [(grad * scale).astype(grad.dtype) for grad in grads]
    return *grads, None, None, None


chunked_divergence.defvjp(_forward, _backward)


def _log_softmax(hidden_CD, head_VD, temperature, axes: Axes) -> jax.Array:
    """Float32 log-probabilities of a device's part of the vocabulary."""
    logits_CV = shifted_logits(hidden_CD, head_VD, temperature, axes)
    total_C1 = jnp.exp(logits_CV).sum(axis=-1, keepdims=True)
    return logits_CV - jnp.log(jax.lax.psum(total_C1, axes.vocab))


def _weighted_with_grad(terms_of, student_CV, weights_C, axes: Axes):
    """`weighted` of a chunk, and its gradient by the chunk's logits / temperature."""
    terms_CV, vjp = jax.vjp(terms_of, student_CV)
    (slopes_CV,) = vjp(
        jnp.ones_like(terms_CV)
    )  # each term depends on its own token only
    probs_CV = jnp.exp(student_CV)
    sums = (terms_CV, -probs_CV * student_CV, slopes_CV)
    sums_C3 = jnp.stack([x.sum(axis=-1) for x in sums], axis=-1)
    sums_C3 = jax.lax.psum(sums_C3, axes.vocab)
    grad_CV = slopes_CV - probs_CV * sums_C3[:, 2:]
    weights_C1 = weights_C[:, None]
    grad_CV = jnp.where(weights_C1 > 0, weights_C1 * grad_CV, 0.0)
    return weighted(sums_C3[:, 0], sums_C3[:, 1], weights_C), grad_CV


def weighted(
    divergence_M: jax.Array, entropy_M: jax.Array, weights_M: jax.Array
) -> Loss:
    """The weighted sum and the logged sums; positions of weight 0 may hold nan."""
    chex.assert_equal_shape([divergence_M, entropy_M, weights_M])
    is_trained_M = weights_M > 0
    divergence_M = jnp.where(is_trained_M, divergence_M, 0.0)
    return jnp.sum(divergence_M * weights_M), {
        "tokens": is_trained_M.sum().astype(jnp.float32),
        "divergence_sum": divergence_M.sum(),
        "entropy_sum": jnp.sum(entropy_M, where=is_trained_M),
    }


def top_k(
    hidden_MU: jax.Array, head_VU: jax.Array, *, k: int, temperature: float, chunk: int
) -> TopK:
    """The `k` likeliest tokens of each position, [M, A], in chunks."""

    @on_each_device((ROWS, VOCAB, VOCAB), ROWS)
    def run(axes, hidden_MU, head_VU, ids_V):
        def block(_, hidden_CU):
            all_CV = _log_softmax(hidden_CU, head_VU, temperature, axes)
            logprobs_CA, places_CA = jax.lax.top_k(all_CV, min(k, len(ids_V)))
            found = (logprobs_CA, ids_V[places_CA])
            if axes.vocab:  # each device has candidates
                found = jax.lax.all_gather(found, axes.vocab, axis=1, tiled=True)
                logprobs_CA, places_CA = jax.lax.top_k(found[0], k)
                ids_CA = jnp.take_along_axis(found[1], places_CA, axis=1)
                found = (logprobs_CA, ids_CA)
            return None, TopK(ids=found[1], logprobs=found[0])

        _, found = jax.lax.scan(block, None, chunks(hidden_MU, chunk))
        return unchunked(found, len(hidden_MU))

    return run(hidden_MU, head_VU, jnp.arange(len(head_VU)))


def top_k_divergence(
    terms_of: Callable,
    logprobs_MA: jax.Array,
    entropy_M: jax.Array,
    top: TopK,
    weights_M: jax.Array,
) -> Loss:
    """A divergence over the teacher's `top` tokens and all others as one: (loss, sums).
    It is a lower bound of the divergence over the whole vocabulary."""
    chex.assert_equal_shape([logprobs_MA, top.logprobs])
    student = with_rest(logprobs_MA)
    teacher = with_rest(top.logprobs)
    return weighted(terms_of(student, teacher).sum(axis=-1), entropy_M, weights_M)


def with_rest(logprobs_MA: Array) -> jax.Array:
    """[M, A + 1]: appends the log-probability of all other tokens together."""
    rest_M1 = 1.0 - jnp.exp(logprobs_MA).sum(axis=-1, keepdims=True)
    rest_M1 = jnp.log(jnp.maximum(rest_M1, _LEAST_REST))
    return jnp.concatenate([logprobs_MA, rest_M1], axis=-1)


def distill_objective(
    model: Transformer,
    part: tuple[Batch, Transformer | None],
    *,
    terms_of: Callable,
    vocabulary: str,
    k: int,
    temperature: float,
    chunk: int,
    remat: str,
) -> Loss:
    """A divergence from the teacher at every trained token: (loss, sums).

    `part` is (packed rows, teacher); the teacher reads the same tokens as the student.
    It is None if `teacher_top` of the rows holds the answers of a served one. Padding
    rows of the larger vocabulary are left out.
    """
    batch, teacher = part
    weights_M = jnp.ravel(batch.weights_BY)
    hidden_MD = completion_hidden(model, batch, remat=remat)
    head_VD = model.head_VD
    if teacher is not None:
        size = min(len(head_VD), len(teacher.head_VD))
        head_VD, teacher_head_VU = head_VD[:size], teacher.head_VD[:size]
        teacher_hidden_MU = jax.lax.stop_gradient(completion_hidden(teacher, batch))
    if vocabulary == "top_k":
        top = jax.tree.map(
            lambda x: x.reshape(-1, x.shape[-1]), batch.teacher_top
        ) or top_k(
            teacher_hidden_MU, teacher_head_VU,
            k=k, temperature=temperature, chunk=chunk,
        )  # fmt: skip
        numbers = token_logprobs(hidden_MD, head_VD, top.ids, temperature, chunk)
        return top_k_divergence(terms_of, *numbers, top, weights_M)
    compare = {
        "dense": dense_divergence,
        "chunked": functools.partial(chunked_divergence, chunk=chunk),
    }[vocabulary]
    return compare(
        terms_of, hidden_MD, head_VD, teacher_hidden_MU, teacher_head_VU, weights_M,
        temperature=temperature,
    )  # fmt: skip


def reverse_kl_policy_loss(
    logprobs: jax.Array, entropies: jax.Array, batch: Batch, **options: Any
) -> Loss:
    """The reverse KL by policy gradient: `policy_loss` with the advantage log p_teacher
    - log p_student of each token, the student as at collection."""
    assert batch.teacher_logprobs_BY is not None
    check_shapes(batch, logprobs, entropies)
    behavior = behavior_logprobs(logprobs, batch)
    advantages = jnp.where(
        batch.weights_BY > 0, batch.teacher_logprobs_BY - behavior, 0.0
    )
    batch = batch.replace(advantages_BY=advantages)
    loss, sums = policy_loss(logprobs, entropies, batch, **options)
    return loss, sums | {"divergence_sum": -advantages.sum()}

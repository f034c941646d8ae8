"""One optimizer step, by policy gradient or by imitation."""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ovd_jax.learning.logprobs import token_logprobs
from ovd_jax.learning.losses import Batch, policy_loss, token_weights
from ovd_jax.models.transformer import Layout, Transformer


class TrainState(flax.struct.PyTreeNode):
    """All that training changes, and all that a checkpoint holds."""

    step: jax.Array  # int32: optimizer steps taken, skipped ones included
    model: Transformer  # an NNX module is a pytree
    opt_state: optax.OptState

    @classmethod
    def create(cls, model: Transformer, tx: optax.GradientTransformation):
        """The state before the first step."""
        return cls(jnp.zeros((), jnp.int32), model, tx.init(model))


def optimizer(
    *,
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    total_steps: int,
    weight_decay: float,
    b1: float,
    b2: float,
    grad_clip: float,
) -> optax.GradientTransformation:
    """AdamW after global-norm clipping; a step with a non-finite gradient is skipped.

    `schedule` is what follows the linear warm-up: `constant`, `linear` or `cosine`
    (both to zero at `total_steps`).
    """
    decay_steps = max(total_steps - warmup_steps, 1)
    rest = {
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(learning_rate, decay_steps),
    }
    if schedule not in rest:
        raise ValueError(f"schedule {schedule!r} is not one of {', '.join(rest)}.")
    warmup = optax.linear_schedule(
        learning_rate / max(warmup_steps, 1), learning_rate, max(warmup_steps - 1, 1)
    )
    rate = optax.join_schedules([warmup, rest[schedule]], [warmup_steps])
    chain = optax.chain(
        optax.clip_by_global_norm(grad_clip),
        optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=decay_mask),
    )
    return optax.apply_if_finite(chain, max_consecutive_errors=2**30)


def decay_mask(params):
    """True for matrices: norms and biases are not decayed."""

    def is_matrix(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return not any(part in name for part in ("norm", "bias"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def apply_gradients(state: TrainState, grads, tx) -> tuple[TrainState, dict]:
    """The next state, and the gradient's norm and the number of steps skipped so
    far."""
    updates, opt_state = tx.update(grads, state.opt_state, state.model)
    model = optax.apply_updates(state.model, updates)
    metrics = {
        "grad_norm": optax.tree.norm(grads),
        "skipped_steps": opt_state.total_notfinite,
    }
    return TrainState(state.step + 1, model, opt_state), metrics


def accumulate(loss_fn: Callable, model: Transformer, batches):
    """Gradients and metrics of `loss_fn(model, batch)`, summed over a leading axis."""

    def part(batch):
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(model, batch)
        return grads, metrics | {"loss": loss}

    def add(total, batch):
        return jax.tree.map(jnp.add, total, part(batch)), None

    shapes = jax.eval_shape(part, jax.tree.map(lambda x: x[0], batches))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, batches)[0]


def update(
    state: TrainState,
    batch: Batch,
    *,
    tx: optax.GradientTransformation,
    micro_batches: int,
    aggregation: str,
    max_tokens: int,
    temperature: float,
    chunk: int,
    remat: bool,
    entropy_coef: float = 0.0,
    **loss_options,
):
    """One GRPO step on a minibatch: (state, batch) -> (state, metrics).

    The B rows are worked on in `micro_batches` equal parts whose gradients are summed;
    the result does not depend on their number.
    """
    weights_BT = token_weights(
        batch.completion_mask_BT, aggregation=aggregation, max_tokens=max_tokens
    )

    def loss_fn(model, inputs):
        part, weights = inputs
        logprobs, entropies = token_logprobs(
            model, part.tokens_BT, temperature=temperature, chunk=chunk, remat=remat
        )
        loss, metrics = policy_loss(logprobs, part, weights, **loss_options)
        loss -= entropy_coef * jnp.sum(entropies * weights)
        entropy = jnp.sum(entropies, where=part.completion_mask_BT)
        return loss, metrics | {"entropy_sum": jax.lax.stop_gradient(entropy)}

    parts = split_rows((batch, weights_BT), micro_batches)
    grads, metrics = accumulate(loss_fn, state.model, parts)
    state, more = apply_gradients(state, grads, tx)
    tokens = jnp.maximum(metrics.pop("tokens"), 1)
    means = {
        name: metrics.pop(f"{name}_sum") / tokens
        for name in ("ratio", "clipped", "entropy")
    }
    return state, metrics | means | more


def imitate(
    state: TrainState,
    tokens_BT: jax.Array,
    weights_BT: jax.Array,
    layout: Layout | None = None,
    *,
    tx: optax.GradientTransformation,
    micro_batches: int = 1,
    chunk: int,
    remat: bool,
):
    """One cross-entropy step (SFT, SeqKD): the mean over tokens weighted by
    `weights_BT`, float32, 0 where a token is only read."""
    weights_BT = weights_BT / weights_BT.sum()

    def loss_fn(model, inputs):
        tokens, layout, weights = inputs
        logprobs, _ = token_logprobs(model, tokens, layout, chunk=chunk, remat=remat)
        return -jnp.sum(logprobs * weights), {}

    parts = split_rows((tokens_BT, layout, weights_BT), micro_batches)
    grads, metrics = accumulate(loss_fn, state.model, parts)
    state, more = apply_gradients(state, grads, tx)
    return state, metrics | more


def split_rows(tree, parts: int):
    """Every [B, ...] array as [parts, B / parts, ...]."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), tree)


@functools.partial(jax.jit, static_argnames=("temperature", "chunk", "rows"))
def batch_logprobs(model, tokens_BT, *, temperature: float, chunk: int, rows: int):
    """Log-probabilities [B, T] of a whole batch, `rows` rows at a time."""

    def part(tokens):
        return token_logprobs(model, tokens, temperature=temperature, chunk=chunk)[0]

    count, length = tokens_BT.shape
    rows = min(rows, count)
    tokens_BT = jnp.pad(tokens_BT, ((0, -count % rows), (0, 0)))
    logprobs = jax.lax.map(part, tokens_BT.reshape(-1, rows, length))
    return logprobs.reshape(-1, length)[:count]

"""Optimizer steps: accumulates gradients over microbatches, then applies them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ovd_jax.errors import UserError
from ovd_jax.learning.batch import Batch
from ovd_jax.learning.logprobs import Loss, token_logprobs, token_loss
from ovd_jax.learning.losses import policy_loss
from ovd_jax.models.attention import Layout
from ovd_jax.models.lora import trainable, with_trainable
from ovd_jax.models.sharding import lay_out
from ovd_jax.models.transformer import Transformer, is_matrix


class TrainState(flax.struct.PyTreeNode):
    """The state that training changes, with the frozen part of the model."""

    step: jax.Array  # int32: optimizer steps taken, skipped ones included
    model: Transformer  # an NNX module is a pytree
    opt_state: optax.ApplyIfFiniteState  # of the trainable part
    reference: Transformer | None = None  # the trainable part at the last refresh

    @classmethod
    def create(cls, model: Transformer, tx: "Transformation") -> "TrainState":
        """The state before the first step, sharded over the mesh."""
        opt_state = tx.init(trainable(model))
        return lay_out(cls(jnp.zeros((), jnp.int32), model, opt_state))

    def refreshed(self) -> "TrainState":
        """The state with its current model as the reference."""
        return self.replace(reference=jax.tree.map(jnp.copy, trainable(self.model)))


class Transformation(Protocol):
    """An optax transformation of models, of which optax's own types know nothing."""

    @property
    def init(self) -> Callable:
        """`init(params) -> state`."""
        ...

    @property
    def update(self) -> Callable:
        """`update(gradients, state, params) -> (updates, state)`."""
        ...


class Optimizer(NamedTuple):
    """A `Transformation` with its learning-rate schedule."""

    init: Callable
    update: Callable
    schedule: Callable[[int], Any]  # optimizer steps applied so far -> learning rate

    def learning_rate(self, state: TrainState) -> float:
        """The learning rate of the last optimizer step before `state`.

        Skipped optimizer steps do not advance the schedule.
        """
        applied = int(state.step) - int(state.opt_state.total_notfinite)
        return float(self.schedule(max(applied - 1, 0)))


def optimizer(
    *,
    learning_rate: float,
    schedule: str,
    warmup_steps: float,
    total_steps: int,
    steps_a_batch: int = 1,
    weight_decay: float,
    b1: float,
    b2: float,
    grad_clip: float,
) -> Optimizer:
    """AdamW after global-norm clipping; a step with a non-finite gradient is skipped.

    `schedule` follows the linear warm-up: `constant`, `linear` or `cosine` (both to
    zero at `total_steps`). `warmup_steps` and `total_steps` count rollout batches of
    `steps_a_batch` optimizer steps each. The rate changes with every optimizer step, so
    a warm-up may end within a batch.
    """
    warmup_steps = round(warmup_steps * steps_a_batch)  # optimizer steps from here on
    decay_steps = max(total_steps * steps_a_batch - warmup_steps, 1)
    rest = {
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(learning_rate, decay_steps),
    }
    if schedule not in rest:
        raise UserError(f"schedule {schedule!r} is not one of {', '.join(rest)}.")
    warmup = optax.linear_schedule(
        learning_rate / max(warmup_steps, 1), learning_rate, max(warmup_steps - 1, 1)
    )
    rate = optax.join_schedules([warmup, rest[schedule]], [warmup_steps])
    chain = optax.chain(
        optax.clip_by_global_norm(grad_clip),
        optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=decay_mask),
    )
    skipping = optax.apply_if_finite(chain, max_consecutive_errors=2**30)
    return Optimizer(skipping.init, skipping.update, rate)


def decay_mask(params: Any) -> Any:
    """True for matrices: norms and biases are not decayed."""
    return jax.tree_util.tree_map_with_path(lambda path, _: is_matrix(path), params)


class Stepper:
    """Jitted optimizer steps on the sum of `loss_fn(model, part) -> (loss, sums)` over
    the microbatches of a batch, all of one shape."""

    def __init__(self, loss_fn: Callable, tx: Transformation):
        self.zeros = jax.jit(zero_gradients)
        self.add = jax.jit(functools.partial(add_gradients, loss_fn), donate_argnums=1)
        self.apply = jax.jit(
            functools.partial(apply_gradients, tx=tx), donate_argnums=0
        )

    def __call__(self, state: TrainState, parts) -> tuple[TrainState, dict]:
        """The state after one step, and the sums over its microbatches, on the device.

        `state` is donated: all of its arrays but the frozen weights are deleted.
        """
        model = state.model
        grads, total = self.zeros(model), None
        for part in parts:
            grads, sums = self.add(model, grads, part)
            total = jax.tree.map(jnp.add, total, sums) if total else sums
        state, metrics = self.apply(state.replace(model=trainable(model)), grads)
        state = state.replace(model=with_trainable(model, state.model))
        return state, total | metrics


def zero_gradients(model: Transformer) -> Transformer:
    """Zeros for the trainable part of `model`, where `add_gradients` begins."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), trainable(model))
    return lay_out(zeros)


def add_gradients(
    loss_fn: Callable, model: Transformer, grads: Transformer, part: Any
) -> tuple[Transformer, dict]:
    """(grads + the gradient of the part's loss, its sums with `loss`).

    The backward pass adds into `grads` layer by layer, so microbatches need no second
    copy of the gradient.
    """
    leaves, treedef = jax.tree.flatten(trainable(model))
    refs = [jax.new_ref(leaf) for leaf in jax.tree.leaves(grads)]
    loss, pullback, sums = jax.vjp(
        lambda leaves: loss_fn(with_trainable(model, treedef.unflatten(leaves)), part),
        leaves,
        has_aux=True,
    )
    pullback.with_refs(refs)(jnp.ones_like(loss))
    grads = jax.tree.unflatten(treedef, [jax.freeze(ref) for ref in refs])
    return lay_out(grads), sums | {"loss": loss}


def apply_gradients(
    state: TrainState, grads: Transformer, *, tx: Transformation
) -> tuple[TrainState, dict]:
    """(next state, metrics): the gradient's norm and the skipped steps, in all and in a
    row.

    All of `state.model` is trainable: the caller has removed the frozen part.
    """
    params: Any = state.model  # optax's types know no modules
    updates, opt_state = tx.update(grads, state.opt_state, params)
    model = optax.apply_updates(params, updates)
    metrics = {
        "grad_norm": optax.tree.norm(grads),
        "skipped_steps": opt_state.total_notfinite,
        "skipped_in_a_row": opt_state.notfinite_count,
    }
    state = state.replace(step=state.step + 1, model=model, opt_state=opt_state)
    return lay_out(state), metrics


def token_objective(
    model: Transformer,
    batch: Batch,
    *,
    loss_fn: Callable,
    temperature: float,
    chunk: int,
    remat: str,
) -> Loss:
    """`loss_fn` of the tokens of some packed rows, each token by itself: (loss,
    sums)."""
    others = ("prompts_BX", "prompt_lengths_B", "problems_B", "teacher_top")
    per_token = jax.tree.map(jnp.ravel, batch.replace(**dict.fromkeys(others)))
    return token_loss(
        loss_fn,
        completion_hidden(model, batch, remat=remat),
        model.head_VD,
        per_token.tokens_BY,
        per_token,
        temperature,
        chunk,
    )


def pack_objective(
    model: Transformer,
    batch: Batch,
    *,
    loss_fn: Callable,
    temperature: float,
    chunk: int,
    remat: str,
) -> Loss:
    """`loss_fn` of all log-probabilities [B, Y], for losses over whole trajectories:
    (loss, sums). The backward pass computes the logits a second time."""
    hidden_MD = completion_hidden(model, batch, remat=remat)
    numbers = token_logprobs(
        hidden_MD, model.head_VD, batch.tokens_BY.ravel(), temperature, chunk
    )
    return loss_fn(*(x.reshape(batch.tokens_BY.shape) for x in numbers), batch)


def policy_objective(
    model: Transformer,
    batch: Batch,
    *,
    temperature: float,
    chunk: int,
    remat: str,
    loss_fn: Callable = policy_loss,
    **loss_options: Any,
) -> Loss:
    """GRPO's loss of some packed rows, by their weights: (loss, sums)."""
    is_joint = loss_options.get("surrogate") == "gspo"
    objective = pack_objective if is_joint else token_objective
    return objective(
        model, batch, loss_fn=functools.partial(loss_fn, **loss_options),
        temperature=temperature, chunk=chunk, remat=remat,
    )  # fmt: skip


def imitation_objective(
    model: Transformer,
    part: tuple[jax.Array, jax.Array, Layout | None],
    *,
    chunk: int,
    remat: str,
) -> Loss:
    """Cross-entropy of `part` = (tokens_BT, weights_BT, layout or None).

    The sum over tokens weighted by `weights_BT`, float32, 0 for tokens that are only
    read. The first token of a row is not predicted.
    """
    tokens_BT, weights_BT, layout = part
    hidden_BTD = model.hidden(tokens_BT, layout, remat=remat)
    targets_BT = jnp.roll(tokens_BT, -1, axis=1)
    weights_BT = jnp.roll(weights_BT.at[:, 0].set(0), -1, axis=1)
    return token_loss(
        lambda logprobs, _, weights: (-jnp.sum(logprobs * weights), {}),
        hidden_BTD.reshape(-1, hidden_BTD.shape[-1]),
        model.head_VD,
        targets_BT.ravel(),
        weights_BT.ravel(),
        1.0,
        chunk,
    )


def completion_hidden(
    model: Transformer, batch: Batch, *, remat: str = "none"
) -> jax.Array:
    """The hidden states that predict the completions' tokens, [B * Y, D]."""
    tokens_BT = jnp.concatenate([batch.prompts_BX, batch.tokens_BY], axis=1)
    hidden_BTD = model.hidden(tokens_BT, batch.layout(), remat=remat)
    sources_BY1 = batch.sources_BY()[:, :, None]
    hidden_BYD = jnp.take_along_axis(hidden_BTD, sources_BY1, axis=1)
    return hidden_BYD.reshape(-1, hidden_BYD.shape[-1])


@functools.partial(jax.jit, static_argnames=("temperature", "chunk"))
def batch_logprobs(
    model: Transformer, batch: Batch, *, temperature: float, chunk: int
) -> jax.Array:
    """Log-probabilities [B, Y] of the completions' tokens."""
    logprobs, _ = token_logprobs(
        completion_hidden(model, batch),
        model.head_VD,
        batch.tokens_BY.ravel(),
        temperature=temperature,
        chunk=chunk,
    )
    return logprobs.reshape(batch.tokens_BY.shape)

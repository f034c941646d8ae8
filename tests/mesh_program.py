"""What training and sampling give on a mesh, as a program that tests start:

    python tests/mesh_program.py OUT.npz MESHES [COORDINATOR PROCESSES PROCESS]

MESHES is JSON, [[data, fsdp, tp], ...]; null stands for no mesh at all. Process 0
writes every number of each under `mesh/what/...`.
"""

import contextlib
import dataclasses
import json
import math
import re
import sys
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from fakes import group, kept, trajectory

from ovd_jax.learning.distill import (
    chunked_divergence,
    dense_divergence,
    top_k,
    top_k_divergence,
)
from ovd_jax.learning.divergences import jsd
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.logprobs import token_logprobs, token_loss
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import TrainState, optimizer, policy_objective
from ovd_jax.models.sharding import (
    fetch,
    lay_out,
    make_mesh,
    put_rows,
    row_shards,
    shardings,
)
from ovd_jax.models.transformer import Transformer, TransformerConfig
from ovd_jax.multihost import processes
from ovd_jax.rollout.pack import pack
from ovd_jax.sampling.label_probs import label_probabilities
from ovd_jax.sampling.sampler import Sampler

CONFIG = TransformerConfig(
    vocab_size=32, width=16, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=4,
    mlp_width=24, qkv_bias=True, tied_head=False, max_positions=64,
)  # fmt: skip
TX = optimizer(
    learning_rate=1e-2, schedule="constant", warmup_steps=0, total_steps=9,
    weight_decay=0.01, b1=0.9, b2=0.99, grad_clip=1e3,
)  # fmt: skip
SIZES = ((5, 2, 9, 1), (3, 3, 3), (12, 7, 1, 2), (4, 4), (11,))  # of completions
TOKENS, VOCAB, WIDTH = 240, 64, 8  # of `loss`
COLLECTIVE = r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
PROMPTS = ((5, 6, 7), (8, 9), (4, 4, 4, 4, 4))


def make_model(seed: int = 0) -> Transformer:
    """Weights large enough that a wrong sum shows; on the mesh, if there is one."""
    rng = np.random.default_rng(seed)
    abstract = jax.eval_shape(lambda: Transformer(CONFIG, jax.random.key(0)))
    mesh = jax.sharding.get_mesh()

    def draw(path, leaf, sharding=None):
        offset = float("scale" in jax.tree_util.keystr(path))
        weights = offset + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32)
        if sharding is None:
            return jnp.asarray(weights, leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, sharding, weights.__getitem__)

    trees = [abstract] if mesh.empty else [abstract, shardings(abstract, mesh)]
    return jax.tree_util.tree_map_with_path(draw, *trees)


def make_batch():
    """Ragged groups with advantages of any size, in packs for this mesh."""
    rng = np.random.default_rng(1)

    def rollout(size):
        tokens = tuple(rng.integers(0, 32, size).tolist())
        return kept(dataclasses.replace(trajectory(size), tokens=tokens), 0.0)

    groups = [
        group(*map(rollout, sizes), prompt=rng.integers(0, 32, 3 + i).tolist())
        for i, sizes in enumerate(SIZES)
    ]
    advantages = [[[float(rng.standard_normal())] for _ in sizes] for sizes in SIZES]
    return pack(
        groups,
        advantages,
        length_multiple=4,
        max_tokens=40,
        minibatches=2,
        shards=row_shards(),
    )


def update() -> dict:
    """A state after two optimizer steps in parts, and their metrics."""
    policy = partial(
        policy_objective, clip_low=0.2, clip_high=0.3, kl_coef=0.1, entropy_coef=0.05
    )
    learner = Learner(
        Objective(policy, 0.8, reference=make_model(1)), tx=TX, minibatches=2, epochs=2,
        max_tokens=16, aggregation="grpo", chunk=5, remat="matmuls",
    )  # fmt: skip
    create = jax.jit(partial(TrainState.create, tx=TX), donate_argnums=0)
    state = create(make_model())
    batch, shape = make_batch()
    state, metrics = learner.learn(state, batch, microbatch=shape.microbatch, seed=0)
    if not (mesh := jax.sharding.get_mesh()).empty:
        check_layout(state, mesh)
    moments = {name: optax.tree.get(state.opt_state, name) for name in ("mu", "nu")}
    return by_path({"model": state.model, "metrics": metrics} | moments)


def check_layout(state: TrainState, mesh) -> None:
    """Raises where an array is not as the table says after a step."""
    expected = jax.tree.leaves(shardings(state, mesh))
    for array, sharding in zip(jax.tree.leaves(state), expected, strict=True):
        if not array.sharding.is_equivalent_to(sharding, array.ndim):
            raise AssertionError(f"{array.shape}: {array.sharding} is not {sharding}")


def sample() -> dict:
    """Tokens and log-probabilities of ragged completions, and of labels."""
    model = make_model()
    sampler = Sampler(
        tokenizer=None, stop_ids=(3, 4), max_new_tokens=40, prompt_multiple=4,
        min_rows=2, top_p=0.95,
    )  # fmt: skip
    completions = sampler(model, PROMPTS, seed=5, samples=3)
    completions += sampler(model, PROMPTS, seed=6, samples=3, environment=Reading())
    labels = ((1,), (1, 0), (2,))
    texts = [(*prompt, token) for prompt in PROMPTS for token in range(5)]
    found = {"labels": label_probabilities(model, texts, labels, rows=4)}
    for p, row in enumerate(completions):
        for g, completion in enumerate(row):
            found[f"tokens/{p}/{g}"] = np.array(completion.tokens)
            found[f"logprobs/{p}/{g}"] = np.array(completion.logprobs)
    return found


class Reading:
    """After each of its first two turns a row reads as many tokens as it has turns."""

    def __init__(self):
        self.turns = Counter()

    def ended(self, turns):
        self.turns.update(row for row, _, _ in turns)
        return [self.turns[row] < 3 for row, _, _ in turns]

    def observations(self, rows):
        return [(5, 6)[: self.turns[row]] for row in rows]


def loss() -> dict:
    """A loss and its gradients in chunks and from dense logits; of each program the
    largest array on a device, and the largest that devices exchange within a loop."""
    rng = np.random.default_rng(2)
    hidden_MD, head_VD, weights_M, bonus_M = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((TOKENS, WIDTH), (VOCAB, WIDTH), (TOKENS,), (TOKENS,))
    )
    targets_M = rng.integers(0, VOCAB, TOKENS)

    def loss_of(logprobs, entropies, inputs):
        weights, bonus = inputs
        losses = weights * jnp.exp(0.3 * logprobs) + bonus * entropies
        return losses.sum(), {"squares": (logprobs**2).sum()}

    def chunked(hidden_MD, head_VD, targets_M, inputs):
        return token_loss(loss_of, hidden_MD, head_VD, targets_M, inputs, 0.7, 5)

    def dense(hidden_MD, head_VD, targets_M, inputs):
        all_MV = jax.nn.log_softmax(hidden_MD @ head_VD.T / 0.7)
        picked_M = jnp.take_along_axis(all_MV, targets_M[:, None], axis=-1)[:, 0]
        entropies_M = -jnp.sum(jnp.exp(all_MV) * all_MV, axis=-1)
        return loss_of(picked_M, entropies_M, inputs)

    def chunked_later(hidden_MD, head_VD, targets_M, inputs):
        numbers = token_logprobs(hidden_MD, head_VD, targets_M, 0.7, 5)
        return loss_of(*numbers, inputs)

    functions = {"chunked": chunked, "later": chunked_later, "dense": dense}
    return measured(functions, hidden_MD, head_VD, targets_M, (weights_M, bonus_M))


def divergence() -> dict:
    """The same of a divergence from a teacher, in all its forms."""
    rng = np.random.default_rng(3)
    hidden_MD, head_VD, teacher_MU, teacher_head_VU, weights_M = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (
            (TOKENS, WIDTH), (VOCAB, WIDTH), (TOKENS, WIDTH), (VOCAB, WIDTH), (TOKENS,)
        )
    )  # fmt: skip
    terms_of = partial(jsd, beta=0.3)

    def chunked(hidden_MD, head_VD, teacher_head_VU, teacher_MU, weights_M):
        return chunked_divergence(
            terms_of, hidden_MD, head_VD, teacher_MU, teacher_head_VU, weights_M, 2.0, 5
        )

    def dense(hidden_MD, head_VD, teacher_head_VU, teacher_MU, weights_M):
        return dense_divergence(
            terms_of, hidden_MD, head_VD, teacher_MU, teacher_head_VU, weights_M, 2.0
        )

    def likeliest(hidden_MD, head_VD, teacher_head_VU, teacher_MU, weights_M):
        top = top_k(teacher_MU, teacher_head_VU, k=VOCAB - 1, temperature=2.0, chunk=5)
        numbers = token_logprobs(hidden_MD, head_VD, top.ids, 2.0, 5)
        return top_k_divergence(terms_of, *numbers, top, weights_M)

    functions = {"chunked": chunked, "top": likeliest, "dense": dense}
    teacher_head_VU = lay_out({"head": teacher_head_VU})["head"]
    weights_M = np.maximum(weights_M, 0) / TOKENS
    rows = (teacher_MU, weights_M)
    return measured(functions, hidden_MD, head_VD, teacher_head_VU, rows=rows)


def measured(functions, hidden_MD, head_VD, *others, rows=None) -> dict:
    """Values and gradients by hidden states and head of several functions, and what is
    in their programs."""
    head_VD = lay_out({"head": head_VD})["head"]
    if rows is None:
        hidden_MD, *others = put_rows((hidden_MD, *others))
    else:
        hidden_MD, *rows = put_rows((hidden_MD, *rows))
    inputs = (hidden_MD, head_VD, *others, *(rows or ()))
    found = {}
    for name, function in functions.items():
        run = jax.jit(jax.value_and_grad(function, argnums=(0, 1), has_aux=True))
        found[name] = run(*inputs)
        text = run.lower(*inputs).compile().as_text()
        found[f"{name} largest"] = largest_array(text.splitlines())
        loops = text[: text.index("\nENTRY")].splitlines()
        exchanged = [line for line in loops if re.search(COLLECTIVE, line)]
        found[f"{name} exchanged in loops"] = largest_array(exchanged)
    return by_path(found)


def largest_array(lines) -> int:
    """The number of elements of the largest array in lines of a compiled program."""
    shapes = [shape for line in lines for shape in re.findall(r"\w\[([\d,]+)\]", line)]
    return max((math.prod(map(int, shape.split(","))) for shape in shapes), default=0)


def by_path(tree) -> dict:
    """Every array of a tree under its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(
            fetch(leaf) if isinstance(leaf, jax.Array) else leaf
        )
        for path, leaf in leaves
    }


def main(out: str, meshes: str, coordinator="", count="1", number="0"):
    """Runs every mesh and writes what it gave."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_disable_most_optimizations", True)
    processes.connect(
        coordinator=coordinator, processes=int(count), process=int(number)
    )
    found = {}
    for sizes in json.loads(meshes):
        context = contextlib.nullcontext()
        if sizes:
            devices = jax.devices()[: math.prod(sizes)]
            data, fsdp, tp = sizes
            mesh = make_mesh(data=data, fsdp=fsdp, tp=tp, devices=devices)
            context = jax.set_mesh(mesh)
        with context:
            results = {
                "loss": loss(), "divergence": divergence(), "update": update(),
                "sample": sample(),
            }  # fmt: skip
        for what, arrays in results.items():
            for name, array in arrays.items():
                found[f"{sizes}/{what}/{name}"] = array
    processes.on_main(np.savez, out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])

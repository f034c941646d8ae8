"""Faults found in other RL trainers (Tunix 0.1.7 and 0.1.8), held off one by one.

fault there                              where it would be caught here
-----------                              -----------------------------
`rope_theta` is ignored                  below, on a folder; test_hf_logits.py
no Llama 3.1 rope scaling                test_hf_logits.py, test_transformer.py
EOS is cut off, so never trained         below
`seed=None` is key 0, never advances     below
temperature 1 is greedy                  test_sampler.py
stop ids baked in at the first trace     test_sampler.py
pad = EOS and masks are `ids != pad`     below
KL averaged over padding                 below
float32 [B, T, V] log-probabilities      below, of the policy and the reference
a group prefills its prompt G times      below
the model is not donated                 below
resume skips data; shuffle not restored  below
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.learning.learner import Learner
from ovd_jax.learning.losses import policy_loss
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import (
    TrainState,
    add_gradients,
    batch_logprobs,
    optimizer,
    policy_objective,
    zero_gradients,
)
from ovd_jax.models import hf
from ovd_jax.models.transformer import Transformer
from ovd_jax.rollout.pack import pack
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.sampling.decode import prefill, row_rngs
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.seeds import derive
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.base import Problem

EOS = 2
BIG_VOCAB = 2003
OPTIMIZER = dict(
    learning_rate=0.05, schedule="constant", warmup_steps=0, total_steps=9,
    weight_decay=0.0, b1=0.9, b2=0.99, grad_clip=1.0,
)  # fmt: skip
LOSS = functools.partial(policy_objective, clip_low=0.2, clip_high=0.2, kl_coef=0.0)
LEARNER = dict(
    minibatches=2, epochs=1, chunk=4, remat="none", aggregation="grpo", max_tokens=16
)


def make_learner(model, **changes):
    """A learner and the state before its first step."""
    tx = optimizer(**OPTIMIZER)
    learner = Learner(Objective(LOSS, 1.0), tx=tx, **LEARNER | changes)
    return learner, TrainState.create(model, tx)


def make_group(prompt, *completions):
    """A group of finished one-step trajectories; no teacher had a say."""
    verdict = Verdict(steps=(), whole=None, value=0.0)

    def rollout(tokens):
        count = len(tokens)
        trajectory = Trajectory(
            tokens=tuple(tokens), logprobs=(-1.0,) * count,
            from_teacher=(False,) * count, text="", step_texts=("",),
            step_ends=(count,), stopped=True,
        )  # fmt: skip
        return Rollout(trajectory, verdict, True, trajectory, verdict, 0.0, 0.0)

    problem = Problem(id="p", question="", answer="", source="test")
    return Group(problem, tuple(prompt), tuple(map(rollout, completions)))


def make_batch(*completions, prompt=(1, 5), advantages=(1.0, -0.5, 0.7, 0.3), width=4):
    """Every completion in a pack of its own."""
    groups = [make_group(prompt, completion) for completion in completions]
    steps = [[[value]] for value in advantages[: len(completions)]]
    return pack(groups, steps, length_multiple=width, max_tokens=64)[0]


BATCH = make_batch((7, 8, EOS), (9, EOS), (4, 4, 4, EOS), (EOS,))


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """The shape of every intermediate, those inside scans and maps too."""
    shapes = set()
    for equation in jaxpr.eqns:
        shapes |= {variable.aval.shape for variable in equation.outvars}
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                shapes |= shapes_in(inner)
    return shapes


def sizes_with(axis, jaxpr) -> set[int]:
    """The sizes of all intermediates that have an axis this long."""
    return {int(np.prod(shape)) for shape in shapes_in(jaxpr) if axis in shape}


def test_the_rope_theta_of_a_folder_reaches_the_logits(model, tmp_path):
    logits = []
    for theta in (1e4, 5e5):
        hf.save(model, tmp_path)
        raw = json.loads((tmp_path / "config.json").read_text())
        raw["rope_parameters"]["rope_theta"] = raw["rope_theta"] = theta
        (tmp_path / "config.json").write_text(json.dumps(raw))
        logits.append(jax.jit(Transformer.__call__)(hf.load(tmp_path), BATCH.tokens_BY))
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_a_sampled_end_token_is_returned_and_trained(model):
    sampler = Sampler(tokenizer=None, stop_ids=tuple(range(0, 26, 2)), max_new_tokens=6)
    (completion,) = sampler(model, [(1, 5)], seed=3)[0]
    assert completion.stopped
    assert completion.tokens[-1] in sampler.stop_ids
    batch = make_batch(completion.tokens, prompt=(1, 5), advantages=[1.0])
    end = len(completion.tokens) - 1
    assert batch.tokens_BY[0, end] == completion.tokens[-1]
    logprobs_BY = np.full(batch.tokens_BY.shape, -1.0, np.float32)
    grads_BY = jax.grad(lambda x: loss_and_kl(x, batch)[0])(logprobs_BY)
    assert grads_BY[0, end] < 0  # descending makes it likelier
    np.testing.assert_array_equal(grads_BY[0, end + 1 :], 0.0)


@jax.jit
def loss_and_kl(logprobs_BY, batch):
    loss, sums = policy_loss(
        logprobs_BY, -logprobs_BY, batch, clip_low=0.2, clip_high=0.2, kl_coef=0.3
    )
    return loss, sums["kl"]


@pytest.mark.parametrize("pad", [0, EOS])
def test_masks_come_from_lengths_and_not_from_ids(pad):
    """Prompts and completions may hold the padding's id, and end tokens inside."""
    batch = make_batch((7, pad, EOS), (EOS, pad), prompt=(pad, EOS, 5))
    np.testing.assert_array_equal(batch.weights_BY, [[1, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.tokens_BY, [[7, pad, EOS, 0], [EOS, pad, 0, 0]])
    np.testing.assert_array_equal(batch.prompt_lengths_B, [3, 3])


def test_seeds_differ_by_step_and_by_purpose_and_come_back():
    uses = [(seed, use, step) for seed in (0, 1) for use in "ab" for step in range(50)]
    seeds = [derive(*use) for use in uses]
    assert len(set(seeds)) == len(uses)
    assert [derive(*use) for use in uses] == seeds
    assert derive(0, "collect", 0) == 346015995  # and in every other process
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_sampler_has_no_seed_of_its_own(model):
    sampler = Sampler(tokenizer=None, stop_ids=(EOS,), max_new_tokens=2)
    with pytest.raises(TypeError, match="seed"):
        sampler(model, [[1]])


def test_padding_counts_neither_in_the_loss_nor_in_the_kl():
    """The wide batch has six times the padding, and nothing sensible in it."""
    noise_BY = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    policy_BY, ref_BY = noise_BY - 2, noise_BY[::-1] - 2
    loss, kl = loss_and_kl(policy_BY, BATCH.replace(ref_logprobs_BY=ref_BY))
    assert kl > 0.1

    def widened(x_BY, fill):
        return jnp.pad(x_BY, ((0, 0), (0, 24)), constant_values=fill)

    wide = jax.tree.map(lambda x: widened(x, 0) if x.ndim == 2 else x, BATCH)
    wide = wide.replace(ref_logprobs_BY=widened(ref_BY, np.inf))
    for fill in (5.0, np.inf):
        actual = loss_and_kl(widened(policy_BY, fill), wide)
        np.testing.assert_allclose(actual, (loss, kl), rtol=1e-6)


def test_no_array_of_all_logits_is_made(config, make_model):
    """Neither by the update and its gradient, nor for behavior and reference."""
    model = make_model(dataclasses.replace(config, vocab_size=BIG_VOCAB))
    chunk, width = 4, model.config.width
    batch = make_batch(*[(7, 8, EOS)] * 4, width=16)
    count = batch.tokens_BY.size
    objective = functools.partial(
        policy_objective, temperature=1.0, chunk=chunk, remat="none", clip_low=0.2,
        clip_high=0.2, kl_coef=0.0,
    )  # fmt: skip
    update = jax.make_jaxpr(functools.partial(add_gradients, objective))(
        model, zero_gradients(model), batch
    )
    score = jax.make_jaxpr(
        lambda m, batch: batch_logprobs(m, batch, temperature=1.0, chunk=chunk)
    )(model, batch)
    for traced in (update, score):
        sizes = sizes_with(BIG_VOCAB, traced.jaxpr)
        assert chunk * BIG_VOCAB in sizes
        assert max(sizes) <= BIG_VOCAB * width < count * BIG_VOCAB / 2
    whole = jax.make_jaxpr(Transformer.__call__)(model, batch.tokens_BY).jaxpr
    assert max(sizes_with(BIG_VOCAB, whole)) == count * BIG_VOCAB


def test_a_group_reads_its_prompt_once(model):
    """The mlp works on [P, T, F], never on [P * G, T, F]."""
    prompts, samples, length, width = 2, 5, 8, model.config.mlp_width
    grid = (prompts, samples)
    shapes = shapes_in(
        jax.make_jaxpr(
            lambda *arrays: prefill(
                model, *arrays, slots=3, temperature=1.0, top_k=0, top_p=1.0
            )
        )(
            np.ones((prompts, length), np.int32),
            np.full(prompts, length, np.int32),
            np.full(grid, 3, np.int32),
            row_rngs(0, np.arange(10).reshape(grid)),
            np.array([EOS]),
        ).jaxpr
    )
    assert (prompts, length, width) in shapes
    wide = {shape for shape in shapes if shape[-1:] == (width,) and len(shape) == 3}
    assert {shape[0] for shape in wide if shape[1] == length} == {prompts}
    heads = (model.config.num_kv_heads, model.config.head_dim)
    assert (prompts, length, *heads) in shapes  # its cache is one too
    assert not any(
        shape[-3:] == (length, *heads) and np.prod(shape[:-3]) > 2 * prompts
        for shape in shapes
    )
    assert (*grid, model.config.vocab_size) in shapes  # G rows go on


@pytest.fixture(scope="module")
def taught(config, make_model):
    """(learner, state before, state after) one rollout batch of 2 * 3 steps."""
    learner, state = make_learner(make_model(config), minibatches=2, epochs=3)
    return learner, state, learner.learn(state, BATCH, microbatch=2, seed=0)[0]


def test_the_old_state_is_donated(taught):
    """A scalar that the step does not read is not donated, and costs nothing."""
    _, before, after = taught
    arrays = [leaf for leaf in jax.tree.leaves(before) if leaf.ndim]
    assert len(arrays) == 3 * len(jax.tree.leaves(before.model))  # two moments each
    assert all(array.is_deleted() for array in arrays)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_a_resumed_run_goes_on_with_the_next_batch(taught):
    """The driver resumes at `state.step // steps_a_batch`; a batch is several steps."""
    learner, _, after = taught
    assert int(after.step) == learner.steps_a_batch == 6


def test_data_and_its_order_are_functions_of_the_step_alone(model):
    """What a fresh process gets for step 5 is what a running one gets."""
    running, resumed = ArithmeticTask(seed=1), ArithmeticTask(seed=1)
    seen = [running.problems(step, 4) for step in range(6)]
    assert resumed.problems(5, 4) == seen[5]
    assert len({problem.question for batch in seen for problem in batch}) > 12
    learner, _ = make_learner(model, epochs=3)
    orders = [
        [part.tokens_BY.tolist() for part in learner.split(BATCH, seed=seed)]
        for seed in (5, 6, 5)
    ]
    assert orders[0] == orders[2] != orders[1]
    for epoch in range(3):
        rows = [row for part in orders[0][2 * epoch : 2 * epoch + 2] for row in part]
        assert sorted(rows) == sorted(BATCH.tokens_BY.tolist())

"""The device batch of a few trajectories, cell by cell, and what it computes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import group, kept, random_groups, swapped, trajectory

from ovd_jax.learning.batch import PADDING
from ovd_jax.learning.learner import Learner, cut
from ovd_jax.learning.losses import token_weights
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import (
    add_gradients,
    batch_logprobs,
    policy_objective,
    zero_gradients,
)
from ovd_jax.rollout.pack import Shape, pack, plan

MIXED = trajectory(1, 2, teacher=(1,), first=20)  # its last two tokens: the teacher's
ENDED = dataclasses.replace(trajectory(2, 1, first=10), tokens=(10, 11, 0))
LONG = trajectory(5, first=13)
GROUPS = (
    group(kept(ENDED, 1.0), swapped(trajectory(9, first=2), MIXED), prompt=(7, 8)),
    group(kept(LONG, 0.0), prompt=(9, 9, 9)),
)
ADVANTAGES = [[[0.5, -1.0], [2.0, 3.0]], [[-0.25]]]
_ = PADDING


def packed(groups=GROUPS, advantages=ADVANTAGES, *, length_multiple=6, max_tokens=99):
    return pack(
        groups, advantages, length_multiple=length_multiple, max_tokens=max_tokens
    )


def assert_cells(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert actual.dtype == dtype


def test_a_packed_row_is_a_prompt_and_bins_of_whole_completions():
    batch, shape = packed()
    assert shape == Shape(prompt=4, bin_size=6, bins=1, microbatch=2)
    assert batch.bin_size == 6
    assert_cells(batch.prompts_BX, [[7, 8, 0, 0], [9, 9, 9, 0]], np.int32)
    assert_cells(batch.prompt_lengths_B, [2, 3], np.int32)
    tokens = [[10, 11, 0, 20, 21, 22], [13, 14, 15, 16, 17, 0]]
    assert_cells(batch.tokens_BY, tokens, np.int32)
    assert_cells(batch.segments_BY, [[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, _]], np.int32)
    assert_cells(batch.offsets_BY, [[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 0]], np.int32)


def test_what_is_said_of_a_token_stands_at_its_place():
    batch, _ = packed()
    assert_cells(batch.weights_BY, [[1] * 6, [1, 1, 1, 1, 1, 0]], np.float32)
    assert_cells(batch.teacher_BY, [[0, 0, 0, 0, 1, 1], [0] * 6], bool)
    assert_cells(
        batch.advantages_BY, [[0.5, 0.5, -1, 2, 3, 3], [-0.25] * 5 + [0]], np.float32
    )
    sampler = [[-1, -1.1, -1.2, -2, 0, 0], [-1.3, -1.4, -1.5, -1.6, -1.7, 0]]
    assert_cells(batch.sampler_logprobs_BY, sampler, np.float32)
    assert batch.behavior_logprobs_BY is batch.ref_logprobs_BY is None


def test_a_step_without_tokens_moves_no_other():
    """Its only characters are in a token that began in the step before."""
    straddled = trajectory(2, 0, 1)
    assert straddled.step_ends == (2, 2, 3)
    batch, _ = packed([group(kept(straddled, 1.0))], [[[1.0, 2.0, 3.0]]])
    np.testing.assert_array_equal(batch.advantages_BY[0, :4], [1, 1, 3, 0])


def test_a_large_group_is_given_several_packs_and_each_its_prompt():
    sizes = [5, 4, 4, 3, 2, 1]
    many = group(*[kept(trajectory(n), 1.0) for n in sizes], prompt=(7, 8))
    batch, shape = packed([many], [[[1.0]] * 6], length_multiple=5, max_tokens=12)
    assert shape == Shape(prompt=2, bin_size=5, bins=2, microbatch=1)
    assert_cells(batch.prompts_BX, [[7, 8]] * 2, np.int32)
    segments = [[1] * 5 + [2] * 4 + [3], [1] * 4 + [_] + [2] * 3 + [3] * 2]
    assert_cells(batch.segments_BY, segments, np.int32)


@pytest.mark.parametrize(
    ("bins", "prompt", "budget", "minibatches", "expected"),
    [
        ([8], 64, 10_000, 1, (8, 1)),  # all of a group behind one prompt
        ([8], 64, 64 + 3 * 200, 1, (2, 1)),  # 4 x (64 + 400) slots, not 3 x (64 + 600)
        ([4, 4, 4, 4], 64, 2000, 1, (4, 2)),  # two groups at a time
        ([4, 4, 4, 4], 64, 10_000, 2, (4, 2)),  # a minibatch has but two
        ([4, 4, 4, 5], 0, 10_000, 1, (1, 24)),  # nothing to share, 17 bins
        (
            [4, 4, 4, 5],
            1000,
            10_000,
            1,
            (6, 4),
        ),  # an empty bin costs less than a prompt
    ],
)
def test_the_plan_computes_the_fewest_slots(
    bins, prompt, budget, minibatches, expected
):
    _, shape = plan(bins, prompt, 200, budget, minibatches)
    assert (shape.bins, shape.microbatch) == expected
    assert shape.slots * shape.microbatch <= budget


@pytest.mark.parametrize(("sizes", "bin_size"), [([6, 4, 4, 4, 6], 12), ([6] * 4, 6)])
def test_bins_are_doubled_where_that_leaves_fewer_slots_empty(sizes, bin_size):
    made = group(*(kept(trajectory(size), 0.0) for size in sizes))
    batch, shape = packed([made], [[[1.0]] * len(sizes)])
    assert shape.bin_size == bin_size
    assert (batch.segments_BY != PADDING).sum() == sum(sizes)


def test_a_completion_over_the_budget_is_refused_not_cut():
    with pytest.raises(ValueError, match=r"take 4 \+ 6 tokens, over the budget of 9"):
        packed(max_tokens=9)


def test_groups_and_advantages_must_match():
    with pytest.raises(ValueError, match="shorter"):
        packed(advantages=ADVANTAGES[:1])
    with pytest.raises(ValueError, match="shorter"):
        packed(advantages=[ADVANTAGES[0][:1], ADVANTAGES[1]])
    with pytest.raises(ValueError, match="broadcast"):
        packed(advantages=[ADVANTAGES[0], [[1.0, 2.0]]])


def separate_rows(model, groups, advantages):
    """(loss, log-probabilities) by plain softmax, a row a trajectory."""
    losses, logprobs = [], []
    for group_, values in zip(groups, advantages, strict=True):
        for rollout, (advantage,) in zip(group_.rollouts, values, strict=True):
            start, tokens = len(group_.prompt_tokens), rollout.final.tokens
            row_1T = jnp.array([group_.prompt_tokens + tokens])
            all_TV = jax.nn.log_softmax(model(row_1T)[0, start - 1 : -1])
            counts_T = np.flatnonzero(rollout.final.loss_mask)
            if not counts_T.size:
                continue
            all_TV = all_TV[counts_T]
            picked_T = all_TV[jnp.arange(len(counts_T)), jnp.array(tokens)[counts_T]]
            entropy = -(jnp.exp(all_TV) * all_TV).sum(-1).mean()
            ratio_T = jnp.exp(picked_T - jax.lax.stop_gradient(picked_T))
            losses.append(-advantage * ratio_T.mean() - 0.1 * entropy)
            logprobs.append(picked_T)
    return sum(losses) / len(losses), jnp.concatenate(logprobs)


@pytest.fixture(scope="module")
def of_separate_rows(model):
    """((loss, log-probabilities), gradient)"""
    groups, advantages = random_groups()
    rows = functools.partial(separate_rows, groups=groups, advantages=advantages)
    return jax.jit(jax.value_and_grad(rows, has_aux=True))(model)


@pytest.mark.slow
@pytest.mark.parametrize(("multiple", "budget"), [(1, 20), (4, 64), (16, 200)])
def test_loss_logprobs_and_gradient_are_those_of_separate_rows(
    multiple, budget, model, of_separate_rows
):
    (loss, logprobs), expected = of_separate_rows
    groups, advantages = random_groups()
    batch, shape = packed(
        groups, advantages, length_multiple=multiple, max_tokens=budget
    )
    actual = batch_logprobs(model, batch, temperature=1.0, chunk=7)
    actual = np.asarray(actual)[batch.weights_BY > 0]
    np.testing.assert_allclose(np.sort(actual), np.sort(logprobs), atol=1e-5)
    objective = functools.partial(
        policy_objective, temperature=1.0, chunk=8, remat="none", clip_low=0.2,
        clip_high=0.2, kl_coef=0.0, entropy_coef=0.1,
    )  # fmt: skip
    weights = token_weights(
        batch.weights_BY > 0, batch.segments_BY, aggregation="grpo", max_tokens=1
    )
    add = jax.jit(functools.partial(add_gradients, objective))
    grads, total = zero_gradients(model), 0.0
    for part in cut(batch.replace(weights_BY=weights), shape.microbatch):
        grads, sums = add(model, grads, part)
        total += sums["loss"]
    np.testing.assert_allclose(total, loss, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5), grads, expected
    )


def minibatches(groups, *, minibatches, shards=1, max_tokens=256, seed=0):
    """The trajectories of each minibatch of two epochs, by prompt and tokens, and what
    each of their tokens counts."""
    advantages = [[[1.0]] * len(g.rollouts) for g in groups]
    batch, _ = pack(
        groups, advantages, length_multiple=4, max_tokens=max_tokens,
        minibatches=minibatches, shards=shards,
    )  # fmt: skip
    learner = Learner(
        Objective(policy_objective, 1.0), tx=None, minibatches=minibatches, epochs=2,
        max_tokens=9, aggregation="grpo", chunk=4,
    )  # fmt: skip
    found = []
    for part in learner.split(batch, seed=seed):
        assert len(part.tokens_BY)
        weights_BY = token_weights(
            part.weights_BY > 0, part.segments_BY, aggregation="grpo", max_tokens=9
        )
        rows = []
        for k, n in np.argwhere((part.offsets_BY == 0) & (part.segments_BY > 0)):
            here = part.segments_BY[k] == part.segments_BY[k, n]
            prompt = part.prompts_BX[k, : part.prompt_lengths_B[k]]
            tokens, weights = part.tokens_BY[k, here], weights_BY[k, here]
            rows.append((*prompt, *tokens, *weights.round(6)))
        found.append(sorted(rows))
    return found


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([(5, 3, 4, 2)], 1),
        ([(5, 3, 4, 2), (9, 9)], 2),  # one problem a minibatch
        ([(5, 3, 4, 2), (1,), (6, 6, 6, 6)], 2),
        ([(5, 3), (2, 2), (9, 1), (4, 4), (3, 8)], 2),
        ([(7,) * 8, (2,) * 8, (5,) * 8], 3),
        ([(), (4, 4), (3, 2)], 3),  # a minibatch of none
    ],
)
def test_a_minibatch_is_the_same_on_any_number_of_devices_of_any_memory(sizes, count):
    groups = [
        group(*(kept(trajectory(n), 0.0) for n in lengths), prompt=(p + 1, p))
        for p, lengths in enumerate(sizes)
    ]
    expected = minibatches(groups, minibatches=count)
    assert sum(map(len, expected)) == 2 * sum(map(len, sizes))
    for shards in (2, 3, 4, 8):
        assert minibatches(groups, minibatches=count, shards=shards) == expected
    for max_tokens in (24, 32):
        assert minibatches(groups, minibatches=count, max_tokens=max_tokens) == expected
    assert minibatches(groups, minibatches=count, seed=1) != expected or len(sizes) < 3

"""Objectives that look at whole trajectories, pairs or vocabularies: packed behind one
prompt they give what plain rows give, one a trajectory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import group, random_groups

from ovd_jax.learning.distill import distill_objective, reverse_kl_policy_loss
from ovd_jax.learning.divergences import jsd, reverse_kl
from ovd_jax.learning.learner import cut
from ovd_jax.learning.losses import dpo_loss, token_weights
from ovd_jax.learning.update import (
    add_gradients,
    batch_logprobs,
    pack_objective,
    policy_objective,
    zero_gradients,
)
from ovd_jax.rollout.pack import pack, with_token_teacher

pytestmark = pytest.mark.slow  # compiles much
close = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
SHARED = dict(temperature=1.0, chunk=7, remat="none")
GROUPS, ADVANTAGES = random_groups(read=False)


@pytest.fixture(scope="module")
def teacher(config, make_model):
    return make_model(config, seed=3)


@pytest.fixture(scope="module")
def drifted(config, make_model):
    """What the policy was when the batch was collected."""
    return make_model(config, seed=5)


def packed(groups, advantages, **options):
    return pack(groups, advantages, length_multiple=4, max_tokens=64, **options)


def loss_and_grads(objective, model, batch, shape, beside=None):
    """Added up over the parts of a batch, weighted as GRPO does."""
    weights = token_weights(
        batch.weights_BY > 0, batch.segments_BY, aggregation="grpo", max_tokens=1
    )
    add = jax.jit(functools.partial(add_gradients, objective))
    grads, total = zero_gradients(model), 0.0
    for part in cut(batch.replace(weights_BY=weights), shape.microbatch):
        grads, sums = add(model, grads, part if beside is None else (part, *beside))
        total += sums["loss"]
    return total, grads


def rows(model, groups):
    """(log-probabilities of a trajectory's tokens [T], of all tokens [T, V]) of each
    trajectory, by plain softmax of right-padded rows."""
    pairs = [(g.prompt_tokens, r.final.tokens) for g in groups for r in g.rollouts]
    longest = max(len(prompt) + len(tokens) for prompt, tokens in pairs)
    tokens_BT = np.zeros((len(pairs), longest), np.int32)
    for row_T, (prompt, tokens) in zip(tokens_BT, pairs, strict=True):
        row_T[: len(prompt) + len(tokens)] = prompt + tokens
    all_BTV = jax.nn.log_softmax(model(tokens_BT))
    for everything_TV, (prompt, tokens) in zip(all_BTV, pairs, strict=True):
        start = len(prompt) - 1
        all_TV = everything_TV[start : start + len(tokens)]
        yield all_TV[jnp.arange(len(tokens)), jnp.array(tokens)], all_TV


def check(loss_of_rows, model, found):
    expected = jax.jit(jax.value_and_grad(loss_of_rows))(model)
    jax.tree.map(close, found, expected)
    assert max(np.abs(x).max() for x in jax.tree.leaves(expected[1])) > 1e-2


def test_gspo_packed_is_gspo_of_rows(model, drifted):
    batch, shape = packed(GROUPS, ADVANTAGES)
    behavior = batch_logprobs(drifted, batch, temperature=1.0, chunk=8)
    batch = batch.replace(behavior_logprobs_BY=np.asarray(behavior))
    objective = functools.partial(
        policy_objective, **SHARED, surrogate="gspo", clip_low=0.5, clip_high=0.5,
        kl_coef=0.0,
    )  # fmt: skip
    found = loss_and_grads(objective, model, batch, shape)
    flat = [a for values in ADVANTAGES for (a,) in values]
    outside = []

    def loss(model):
        pairs = zip(rows(model, GROUPS), rows(drifted, GROUPS), flat, strict=True)
        losses = []
        for (new_T, _), (old_T, _), advantage in pairs:
            ratio = jnp.exp(jnp.mean(new_T - old_T))
            clipped = jnp.clip(ratio, 0.5, 1.5)
            losses.append(-jnp.minimum(ratio * advantage, clipped * advantage))
        return sum(losses) / len(losses)

    check(loss, model, found)
    for (new_T, _), (old_T, _) in zip(
        rows(model, GROUPS), rows(drifted, GROUPS), strict=True
    ):
        ratio = np.exp(np.mean(new_T - old_T))
        outside.append(not 0.5 < ratio < 1.5)
    assert 0 < sum(outside) < len(outside)


def test_dpo_packed_is_dpo_of_rows(model, drifted):
    """Each pair of a group's trajectories in turn, the longer ones in two bins."""
    pairs = [
        group(*g.rollouts[i : i + 2], prompt=g.prompt_tokens)
        for g in GROUPS
        for i in range(0, len(g.rollouts) - 1, 2)
    ]
    signs = [[[1.0], [-1.0]]] * len(pairs)
    batch, shape = packed(pairs, signs, pairs=True)
    assert len(batch.tokens_BY) == len(pairs)
    reference = batch_logprobs(drifted, batch, temperature=1.0, chunk=8)
    batch = batch.replace(ref_logprobs_BY=np.asarray(reference))
    objective = functools.partial(
        pack_objective, **SHARED, loss_fn=functools.partial(dpo_loss, beta=0.2)
    )
    found = loss_and_grads(objective, model, batch, shape)

    def loss(model):
        gains = [
            jnp.sum(new_T - old_T)
            for (new_T, _), (old_T, _) in zip(
                rows(model, pairs), rows(drifted, pairs), strict=True
            )
        ]
        margins = [0.2 * (a - b) for a, b in zip(gains[::2], gains[1::2], strict=True)]
        return -sum(map(jax.nn.log_sigmoid, margins)) / len(margins)

    check(loss, model, found)


@pytest.mark.parametrize("vocabulary", ["dense", "chunked", "top_k"])
@pytest.mark.parametrize("terms_of", [reverse_kl, functools.partial(jsd, beta=0.3)])
def test_a_divergence_packed_is_that_of_rows(vocabulary, terms_of, model, teacher):
    """`top_k` with all tokens but one, and the rest, which is that one."""
    batch, shape = packed(GROUPS, ADVANTAGES)
    objective = functools.partial(
        distill_objective, **SHARED | {"temperature": 2.0}, terms_of=terms_of,
        vocabulary=vocabulary, k=25,
    )  # fmt: skip
    found = loss_and_grads(objective, model, batch, shape, beside=(teacher,))

    def loss(model):
        losses = [
            terms_of(jax.nn.log_softmax(s / 2), jax.nn.log_softmax(t / 2))
            .sum(-1)
            .mean()
            for (_, s), (_, t) in zip(
                rows(model, GROUPS), rows(teacher, GROUPS), strict=True
            )
        ]
        return sum(losses) / len(losses)

    check(loss, model, found)


def test_the_policy_gradient_of_the_reverse_kl_is_its_gradient_on_average(
    model, teacher
):
    """A token's advantage is what the teacher gives it over the student, whose slope at
    ratio 1 is that times the slope of log p."""
    batch, shape = packed(GROUPS, ADVANTAGES)
    theirs = batch_logprobs(teacher, batch, temperature=1.0, chunk=8)
    batch = batch.replace(teacher_logprobs_BY=np.asarray(theirs))
    objective = functools.partial(
        policy_objective, **SHARED, loss_fn=reverse_kl_policy_loss, clip_low=0.2,
        clip_high=0.2, kl_coef=0.0,
    )  # fmt: skip
    found = loss_and_grads(objective, model, batch, shape)

    def loss(model):
        losses = []
        for (s_T, _), (t_T, _) in zip(
            rows(model, GROUPS), rows(teacher, GROUPS), strict=True
        ):
            fixed_T = jax.lax.stop_gradient(s_T)
            losses.append(-jnp.mean((t_T - fixed_T) * jnp.exp(s_T - fixed_T)))
        return sum(losses) / len(losses)

    check(loss, model, found)


def test_what_a_served_teacher_says_comes_to_the_token_it_is_about(model, teacher):
    """Read row by row and put into the packs, it gives the in-process top-k's loss."""
    batch, shape = packed(GROUPS, ADVANTAGES)

    def read(asked):
        known = dict(zip(map(repr, in_order), rows(teacher, GROUPS), strict=True))
        for prompt, tokens in asked:
            places = []
            all_TV = np.asarray(known[repr((prompt, tokens))][1])
            for row_V, token in zip(all_TV, tokens, strict=True):
                shown = {*np.argsort(-row_V)[:5].tolist(), token}
                places.append({id_: float(row_V[id_]) for id_ in sorted(shown)})
            yield places

    in_order = [
        (list(g.prompt_tokens), list(r.final.tokens))
        for g in GROUPS
        for r in g.rollouts
    ]
    served = with_token_teacher(batch, lambda asked: list(read(asked)), 5)
    theirs_BY = np.asarray(batch_logprobs(teacher, batch, temperature=1.0, chunk=8))
    is_token_BY = batch.weights_BY > 0
    close(served.teacher_logprobs_BY[is_token_BY], theirs_BY[is_token_BY])
    # What the server refuses is not trained on.
    partly = with_token_teacher(batch, lambda asked: [None, *list(read(asked))[1:]], 5)
    (first_B, first_C) = np.nonzero(batch.segments_BY == 1)
    left_out = first_B == 0
    assert not partly.weights_BY[0, first_C[left_out]].any()
    others_BY = is_token_BY.copy()
    others_BY[0, first_C[left_out]] = False
    np.testing.assert_array_equal(partly.weights_BY > 0, others_BY)
    objective = functools.partial(
        distill_objective, **SHARED, terms_of=reverse_kl, vocabulary="top_k", k=5
    )
    expected = loss_and_grads(objective, model, batch, shape, beside=(teacher,))
    found = loss_and_grads(objective, model, served, shape, beside=(None,))
    jax.tree.map(close, found, expected)

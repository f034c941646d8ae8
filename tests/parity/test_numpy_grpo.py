"""Parity with GRPO written out in NumPy, from rewards and weights to loss and gradient.

Float64, one trajectory and one token at a time, no padding and no masks; gradients are
finite differences of that. Some trajectories were replaced, whole or in part.
"""

import functools

import jax
import numpy as np
import optax
import pytest
from fakes import group, kept, swapped, trajectory

from ovd_jax.learning.learner import Learner, cut
from ovd_jax.learning.losses import policy_loss, token_weights
from ovd_jax.learning.objective import Objective
from ovd_jax.learning.update import TrainState, policy_objective
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.rollout.pack import pack

MAX_TOKENS = 12
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
KL_COEF = 0.1
TEMPERATURE = 0.8
RATE = 0.02  # in two steps it takes ratios over both ends of the clipping range
CREDIT = dict(
    credit="trajectory", credit_weight=0.5, levels=10, baseline="after",
    scale_by_std=True,
)  # fmt: skip
GROUPS = (
    group(
        kept(trajectory(3, 4, first=2), 1.0),
        kept(trajectory(2, first=9, stopped=False), 0.0),
        swapped(trajectory(6, first=12), trajectory(2, 3, teacher=(1,), first=15)),
        prompt=(3, 17),
    ),
    group(
        kept(trajectory(1, first=20), 0.0),
        kept(trajectory(5, 2, first=11), 0.25),
        swapped(trajectory(4, first=8), trajectory(1, 5, teacher=(0, 1), first=4)),
        prompt=(21, 4, 11, 6),
    ),
)
ROWS = [(g.prompt_tokens, r.final) for g in GROUPS for r in g.rollouts]
SIZES = [len(final.tokens) for _, final in ROWS]
AGGREGATIONS = ("grpo", "dapo", "dr_grpo")


def numpy_advantages() -> list[float]:
    """One a trajectory (arXiv:2402.03300, sec. 4.1.2), by the rewards `after`."""
    values = []
    for group_ in GROUPS:
        rewards = np.array([rollout.reward_after for rollout in group_.rollouts])
        values += list((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6))
    return values


def numpy_weight(aggregation: str, size: int) -> float:
    if aggregation == "grpo":
        return 1 / size / len(ROWS)
    return 1 / sum(SIZES) if aggregation == "dapo" else 1 / (len(ROWS) * MAX_TOKENS)


def numpy_loss(policy, behavior, ref, *, aggregation, cap) -> float:
    """The loss of ROWS; arguments hold, for each row, its completion's log-probs."""
    loss = 0.0
    for b, ((_, final), advantage) in enumerate(
        zip(ROWS, numpy_advantages(), strict=True)
    ):
        for t, from_teacher in enumerate(final.from_teacher):
            ratio = np.exp(policy[b][t] - behavior[b][t])
            clipped = min(max(ratio, 1 - CLIP_LOW), 1 + CLIP_HIGH)
            gain = min(ratio * advantage, clipped * advantage)
            if cap and not from_teacher:
                gain *= min(np.exp(behavior[b][t] - final.logprobs[t]), cap)
            difference = ref[b][t] - policy[b][t]
            kl = np.exp(difference) - difference - 1
            loss += numpy_weight(aggregation, SIZES[b]) * (KL_COEF * kl - gain)
    return loss


def clipped_cases(policy, behavior) -> set[tuple[str, str]]:
    """Which sides of the clipping range are left, at which signs of the advantage."""
    cases = set()
    for row, start, advantage in zip(policy, behavior, numpy_advantages(), strict=True):
        for ratio in np.exp(np.subtract(row, start)):
            sign = "+" if advantage > 0 else "-"
            cases |= {("low", sign)} if ratio < 1 - CLIP_LOW else set()
            cases |= {("high", sign)} if ratio > 1 + CLIP_HIGH else set()
    return cases


ALL_CASES = {(side, sign) for side in ("low", "high") for sign in "+-"}


def slope(function, x, direction, step=1e-6) -> float:
    """The derivative of `function` at the arrays `x` along `direction`."""
    return (function(x + step * direction) - function(x - step * direction)) / 2 / step


def assert_close(actual, expected, **options):
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-5, **options)


def packed():
    advantages = [group_advantages(group_, **CREDIT) for group_ in GROUPS]
    return pack(GROUPS, advantages, length_multiple=4, max_tokens=64)


def places(batch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where in the batch each of ROWS stands, found by its tokens."""
    found = {}
    for k, segments in enumerate(batch.segments_BY):
        for segment in range(1, segments.max() + 1):
            (c,) = np.nonzero(segments == segment)
            length = batch.prompt_lengths_B[k]
            key = (*batch.prompts_BX[k, :length], *batch.tokens_BY[k, c])
            found[key] = (np.full_like(c, k), c)
    return [found[(*prompt, *final.tokens)] for prompt, final in ROWS]


def spread(rows, batch) -> np.ndarray:
    """The rows' numbers where their completions stand in the batch."""
    array_BY = np.zeros(batch.tokens_BY.shape, np.float32)
    for place, row in zip(places(batch), rows, strict=True):
        array_BY[place] = row
    return array_BY


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_loss_and_its_slope_in_every_logprob(aggregation, cap):
    rng = np.random.default_rng(0)
    behavior = [rng.uniform(-3, 0, size) for size in SIZES]
    policy = [row + rng.normal(0, 0.5, len(row)) for row in behavior]
    ref = [row + rng.normal(0, 0.5, len(row)) for row in policy]
    assert clipped_cases(policy, behavior) == ALL_CASES
    batch, _ = packed()
    weights_BY = token_weights(
        batch.weights_BY > 0, batch.segments_BY, aggregation=aggregation,
        max_tokens=MAX_TOKENS,
    )  # fmt: skip
    batch = batch.replace(
        weights_BY=weights_BY,
        behavior_logprobs_BY=spread(behavior, batch),
        ref_logprobs_BY=spread(ref, batch),
    )

    def loss(logprobs_BY):
        return policy_loss(
            logprobs_BY, 0 * logprobs_BY, batch, clip_low=CLIP_LOW,
            clip_high=CLIP_HIGH, kl_coef=KL_COEF, importance_cap=cap,
        )[0]  # fmt: skip

    def expected(flat):
        rows = np.split(flat, np.cumsum(SIZES)[:-1])
        return numpy_loss(rows, behavior, ref, aggregation=aggregation, cap=cap)

    actual, grads_BY = jax.value_and_grad(loss)(spread(policy, batch))
    flat = np.concatenate(policy)
    assert_close(actual, expected(flat))
    slopes = [slope(expected, flat, unit) for unit in np.eye(len(flat))]
    slopes = np.split(np.array(slopes), np.cumsum(SIZES)[:-1])
    assert_close(grads_BY, spread(slopes, batch))


def rms_norm(x_TD, scale_D, eps):
    return x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + eps) * scale_D


def rotated(x_TE, theta):
    half = x_TE.shape[1] // 2
    angles = np.arange(len(x_TE))[:, None] * theta ** (-np.arange(half) / half)
    turned = (x_TE[:, :half] + 1j * x_TE[:, half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=1)


def softmax(x):
    exps = np.exp(x - x.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def numpy_layer(c, p, x_TD):
    """One block, head by head."""
    normed_TD = rms_norm(x_TD, p["attention_norm/scale"], c.norm_eps)
    q, k, v = (normed_TD @ p[f"{m}/kernel"] + p[f"{m}/bias"] for m in "qkv")
    heads = []
    for h in range(c.num_heads):
        own = slice(h * c.head_dim, (h + 1) * c.head_dim)
        shared_by = c.num_heads // c.num_kv_heads
        first = h // shared_by * c.head_dim
        shared = slice(first, first + c.head_dim)
        q_TE, k_TE = (rotated(x, c.rope_theta) for x in (q[:, own], k[:, shared]))
        scores_TT = q_TE @ k_TE.T / np.sqrt(c.head_dim)
        scores_TT[np.triu_indices(len(x_TD), 1)] = -np.inf
        heads.append(softmax(scores_TT) @ v[:, shared])
    x_TD = x_TD + np.concatenate(heads, axis=1) @ p["o/kernel"]
    normed_TD = rms_norm(x_TD, p["mlp_norm/scale"], c.norm_eps)
    gate_TF = normed_TD @ p["gate/kernel"]
    hidden_TF = gate_TF / (1 + np.exp(-gate_TF)) * (normed_TD @ p["up/kernel"])
    return x_TD + hidden_TF @ p["down/kernel"]


def numpy_logprobs(c, params) -> list[list[float]]:
    """For each of ROWS the log-probabilities of its completion."""
    found = []
    for prompt, final in ROWS:
        tokens = [*prompt, *final.tokens]
        x_TD = params["embed/embedding"][tokens]
        for n in range(c.num_layers):
            layer = {
                name.removeprefix("layers/"): weights[n]
                for name, weights in params.items()
                if name.startswith("layers/")
            }
            x_TD = numpy_layer(c, layer, x_TD)
        x_TD = rms_norm(x_TD, params["norm/scale"], c.norm_eps)
        probs_TV = softmax(x_TD @ params["head"].T / TEMPERATURE)
        places = range(len(prompt), len(tokens))
        found.append([np.log(probs_TV[t - 1, tokens[t]]) for t in places])
    return found


def by_name(tree) -> dict[str, np.ndarray]:
    """The arrays of a model or of its gradient, in float64."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix(
            "/value"
        ): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.slow
def test_loss_and_gradient_of_every_epoch(config, make_model):
    """Each parameter's gradient along a random direction of +1 and -1."""
    # `trace` keeps the gradient, for the test to look at.
    tx = optax.apply_if_finite(optax.chain(optax.trace(0.0), optax.scale(-RATE)), 1)
    model = make_model(config)
    reference = jax.tree.map(lambda x: 1.02 * x, model)
    policy = functools.partial(
        policy_objective, clip_low=CLIP_LOW, clip_high=CLIP_HIGH, kl_coef=KL_COEF,
        importance_cap=2.0,
    )  # fmt: skip
    learner = Learner(
        Objective(policy, TEMPERATURE, reference=reference), tx=tx, minibatches=1,
        epochs=3, chunk=5, aggregation="grpo", max_tokens=MAX_TOKENS,
    )  # fmt: skip
    behavior = numpy_logprobs(config, by_name(model))
    ref = numpy_logprobs(config, by_name(reference))

    def loss(params):
        policy = numpy_logprobs(config, params)
        cases.update(clipped_cases(policy, behavior))
        return numpy_loss(policy, behavior, ref, aggregation="grpo", cap=2.0)

    def slope_in(name, params, signs):
        return slope(lambda x: loss(params | {name: x}), params[name], signs)

    cases = set()
    rng = np.random.default_rng(0)
    state = TrainState.create(model, tx)
    batch = learner.with_logprobs(model, packed()[0], 2)
    for part in learner.split(batch, seed=0):
        params = by_name(state.model)
        weights = learner._weights(part.weights_BY > 0, part.segments_BY)
        parts = cut(part.replace(weights_BY=weights), 1)
        state, metrics = learner.stepper(state, parts)
        assert_close(metrics["loss"], loss(params))
        for name, grads in by_name(state.opt_state.inner_state[0].trace).items():
            signs = rng.choice([-1.0, 1.0], grads.shape)
            expected = slope_in(name, params, signs)
            assert_close(np.sum(grads * signs), expected, err_msg=name)
    assert cases == ALL_CASES

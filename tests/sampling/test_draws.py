"""What the sampler draws from: softmax, temperature, top-k and top-p."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_cases import PROMPTS, forward, sample, tokens_of

from ovd_jax.sampling.top_p import choose


def silent(model):
    """The model with equal logits for every token."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x * ("head" not in jax.tree_util.keystr(path)), model
    )


def test_every_token_of_every_row_is_a_draw_of_its_own(model):
    quiet = sample(silent(model), PROMPTS[:1], samples=1024, max_new_tokens=2)
    tokens_BO = np.array(tokens_of(quiet))
    assert_frequencies(tokens_BO.ravel(), np.full(26, 1 / 26))
    for repeats in (
        tokens_BO[:, 1:] == tokens_BO[:, :-1],
        tokens_BO[1:] == tokens_BO[:-1],
    ):
        assert abs(repeats.mean() - 1 / 26) < 5 * math.sqrt(1 / 26 / repeats.size)


def test_temperature_1_samples_from_the_softmax_and_is_not_greedy(model):
    completions = sample(model, PROMPTS[:1], samples=1024, max_new_tokens=2)[0]
    logits_1TV = forward(model, np.pad(PROMPTS[:1], ((0, 0), (0, 31))))
    probs = np.asarray(jax.nn.softmax(logits_1TV[0, 0]))
    assert_frequencies([c.tokens[0] for c in completions], probs)
    assert probs.max() < 0.9


def assert_frequencies(tokens, probs):
    """A chi-square test at about six standard deviations; rare tokens are lumped."""
    probs = np.asarray(probs, np.float64)
    counts = np.bincount(tokens, minlength=len(probs)).astype(float)
    assert counts[probs == 0].sum() == 0
    expected = probs * len(tokens)
    common = expected >= 5
    counts = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], max(expected[~common].sum(), 1.0))
    freedom = max(common.sum() - 1, 1)
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < freedom + 6 * math.sqrt(2 * freedom)


def draw(probs, *, count=20_000, **options):
    """`count` tokens chosen from `probs`, and their log-probabilities."""
    logits_BV = jnp.broadcast_to(jnp.log(jnp.array(probs)) + 3.0, (count, len(probs)))
    keys_B = jax.random.split(jax.random.key(5), count)
    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    chosen = jax.jit(functools.partial(choose, **defaults | options))
    return jax.device_get(chosen(logits_BV, keys_B))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_tempered_softmax(temperature):
    probs = np.array([0.1, 0.5, 0.15, 0.25])
    tempered = probs ** (1 / temperature) / np.sum(probs ** (1 / temperature))
    tokens_B, logprobs_B = draw(probs, temperature=temperature)
    assert_frequencies(tokens_B, tempered)
    np.testing.assert_allclose(logprobs_B, np.log(tempered)[tokens_B], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 1, 0, 1]),
        ({"top_k": 9}, [1, 1, 1, 1]),
        ({"top_p": 0.39}, [0, 1, 0, 0]),  # the likeliest alone reaches it
        ({"top_p": 0.41}, [0, 1, 0, 1]),
        ({"top_p": 0.69}, [0, 1, 0, 1]),  # 0.4 + 0.3 reach it
        ({"top_p": 0.71}, [0, 1, 1, 1]),
        ({"top_p": 0.91}, [1, 1, 1, 1]),
        # Of the three kept, the first two have 0.7 / 0.9 = 0.78 of what is left.
        ({"top_k": 3, "top_p": 0.75}, [0, 1, 0, 1]),
        # At temperature 1/2 the odds are squared: 1, 16, 4, 9 of 30.
        ({"temperature": 0.5, "top_p": 0.82}, [0, 1, 0, 1]),
    ],
)
def test_top_k_and_top_p_keep_what_was_worked_out_by_hand(options, kept):
    temperature = options.get("temperature", 1.0)
    tempered = np.array([0.1, 0.4, 0.2, 0.3]) ** (1 / temperature)
    tempered /= tempered.sum()
    tokens_B, logprobs_B = draw([0.1, 0.4, 0.2, 0.3], **options)
    left = tempered * np.array(kept)
    assert_frequencies(tokens_B, left / left.sum())
    # The learner knows nothing of top-k and top-p: these are the whole softmax's.
    np.testing.assert_allclose(logprobs_B, np.log(tempered)[tokens_B], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-3])
def test_a_vocabulary_of_many_blocks_is_drawn_from_as_a_small_one(top_p):
    """600 tokens are two blocks and a part of one; whole blocks may have no weight."""
    probs = np.random.default_rng(0).dirichlet(np.full(600, 0.2))
    probs[256:512] = 0
    probs /= probs.sum()
    order = np.argsort(-probs)
    kept = np.zeros(600)
    kept[order[np.cumsum(probs[order]) - probs[order] < top_p]] = 1
    tokens_B, _ = draw(probs, top_p=top_p)
    assert_frequencies(tokens_B, probs * kept / np.sum(probs * kept))


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p": 0.6}])
def test_tokens_tied_with_the_last_one_kept_are_kept(options):
    """Two of 0.25, 0.5, 0.25 would do, but which of the equals is not for us to say."""
    tokens_B, _ = draw([0.25, 0.5, 0.25], **options)
    assert_frequencies(tokens_B, [0.25, 0.5, 0.25])


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (0, 0.45)])
def test_each_row_is_cut_by_its_own_distribution(top_k, top_p):
    logits_BV = np.log(np.tile([[0.6, 0.3, 0.1], [0.1, 0.4, 0.5]], (100, 1)))
    keys_B = jax.random.split(jax.random.key(0), 200)
    chosen = functools.partial(choose, temperature=1.0, top_k=top_k, top_p=top_p)
    tokens_B, _ = jax.jit(chosen)(logits_BV.astype(np.float32), keys_B)
    np.testing.assert_array_equal(tokens_B, np.tile([0, 2], 100))

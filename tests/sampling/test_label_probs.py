"""Label probabilities, against full forward passes and the chain rule by hand."""

import jax
import numpy as np
import pytest

from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.label_probs import label_probabilities
from ovd_jax.sampling.prefix_tree import grow

PROMPTS = ([3], [7, 1, 4, 20, 21], [5, 9], [8, 0, 11, 12, 13, 14, 2])
ONE, ZERO, TWO = 3, 4, 5  # tokens that spell the labels "1", "10", "2", ...
forward = jax.jit(Transformer.__call__)


def next_probs(model, *tokens) -> np.ndarray:
    """The softmax after `tokens`, by a full forward pass over one row."""
    tokens_1T = np.zeros((1, 12), np.int32)
    tokens_1T[0, : len(tokens)] = tokens
    logits_V = forward(model, tokens_1T)[0, len(tokens) - 1]
    return np.asarray(jax.nn.softmax(logits_V))


def test_labels_of_one_token_are_entries_of_the_softmax(model):
    labels = [(9,), (0,), (25,)]
    masses = label_probabilities(model, PROMPTS, labels)
    expected = [next_probs(model, *prompt)[[9, 0, 25]] for prompt in PROMPTS]
    np.testing.assert_allclose(masses, expected, atol=1e-6)
    assert np.std(expected) > 0.01


def test_labels_of_several_tokens_follow_the_chain_rule(model):
    """ "1" is also how "10" and "102" begin: it is meant where none of them goes on."""
    labels = [(ONE,), (ONE, ZERO), (TWO,), (ONE, ZERO, TWO), (7, TWO), (ONE, 8)]
    masses = label_probabilities(model, PROMPTS, labels)
    for prompt, row in zip(PROMPTS, masses, strict=True):
        first = next_probs(model, *prompt)
        after_1 = next_probs(model, *prompt, ONE)
        after_10 = next_probs(model, *prompt, ONE, ZERO)
        after_7 = next_probs(model, *prompt, 7)
        expected = [
            first[ONE] * (1 - after_1[ZERO] - after_1[8]),
            first[ONE] * after_1[ZERO] * (1 - after_10[TWO]),
            first[TWO],
            first[ONE] * after_1[ZERO] * after_10[TWO],
            first[7] * after_7[TWO],
            first[ONE] * after_1[8],
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-8)


def test_the_order_of_labels_is_kept_and_does_not_matter(model):
    labels = [(ONE, ZERO), (TWO,), (ONE,), (0,)]
    masses = label_probabilities(model, PROMPTS, labels)
    backwards = label_probabilities(model, PROMPTS, labels[::-1])
    np.testing.assert_array_equal(masses, backwards[:, ::-1])


def test_masses_are_parts_of_one_probability(model):
    labels = [(token,) for token in range(25)] + [(ONE, token) for token in range(26)]
    masses = label_probabilities(model, PROMPTS, labels)
    assert masses.dtype == np.float64
    assert masses.min() >= 0
    outside = [next_probs(model, *prompt)[25] for prompt in PROMPTS]
    np.testing.assert_allclose(1 - masses.sum(1), outside, atol=1e-6)


def test_other_prompts_and_padding_change_nothing(model):
    """Alone each is padded less, and `rows` puts them into other batches."""
    labels = [(ONE,), (ONE, ZERO), (TWO,)]
    together = label_probabilities(model, PROMPTS, labels)
    in_pairs = label_probabilities(model, PROMPTS, labels, rows=2)
    long = [1] * 40
    beside_a_long_one = label_probabilities(model, [long, *PROMPTS], labels, rows=8)
    np.testing.assert_allclose(in_pairs, together, rtol=1e-4)
    np.testing.assert_allclose(beside_a_long_one[1:], together, rtol=1e-4)


@pytest.mark.parametrize("labels", [[], [()], [(1,), ()], [(1,), (2,), (1,)]])
def test_labels_that_cannot_be_told_apart_are_refused(labels, model):
    with pytest.raises(ValueError, match="distinct and not empty"):
        label_probabilities(model, PROMPTS, labels)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="prompt is empty"):
        label_probabilities(model, [[1], []], [(1,)])


def test_prompts_that_begin_alike_are_read_once_and_judged_as_if_alone(model):
    """The steps of a trajectory: each prompt is a beginning of the next, and a mark."""
    text = [5, 9, 11, 2, 17, 8, 20, 1, 13]
    prompts = [[*text[:end], 24] for end in (3, 5, 7, 9)] + [text, text[:6], [2, 5]]
    trees = grow(prompts)
    assert len(trees) == 2
    assert sum(len(tree.tokens) for tree in trees) < 0.6 * sum(map(len, prompts))
    labels = [(token,) for token in range(26)]
    together = label_probabilities(model, prompts, labels)
    alone = [label_probabilities(model, [p], labels)[0] for p in prompts]
    np.testing.assert_allclose(together, alone, atol=1e-6)

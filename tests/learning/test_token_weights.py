"""How tokens are weighted against each other, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import (
    AGGREGATIONS,
    MASK_KC,
    SEGMENTS_KC,
    TRAINED_KC,
    assert_close,
    make_batch,
    weigh,
)

from ovd_jax.learning.losses import (
    trajectory_means,
)


@pytest.mark.parametrize(
    ("aggregation", "first", "second"),
    [
        ("grpo", 1 / 3 / 2, 1 / 2 / 2),
        ("dapo", 1 / 5, 1 / 5),
        ("dr_grpo", 1 / 10 / 2, 1 / 10 / 2),
    ],
)
def test_token_weights_by_hand(aggregation, first, second):
    """Trajectories of three tokens and two, in one pack or in one each."""
    expected = MASK_KC * np.array([[first], [second]])
    weights_BY = weigh(MASK_KC, aggregation)
    assert_close(weights_BY, expected)
    assert weights_BY.dtype == np.float32
    together = weigh(MASK_KC.reshape(1, -1), aggregation, [[1] * 5 + [2] * 5])
    assert_close(together, expected.reshape(1, -1))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_row_without_trained_tokens_counts_nowhere(aggregation):
    longer = np.concatenate([MASK_KC, np.zeros((3, 5), bool)])
    weights_BY = weigh(longer, aggregation)
    alone_BY = weigh(MASK_KC, aggregation)
    np.testing.assert_array_equal(weights_BY[:2], alone_BY)
    np.testing.assert_array_equal(weights_BY[2:], 0.0)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_nothing_to_train_on_gives_weights_of_zero(aggregation):
    nothing = np.zeros((2, 5), bool)
    weights_BY = weigh(nothing, aggregation)
    np.testing.assert_array_equal(weights_BY, np.zeros((2, 5)))


def test_an_unknown_aggregation_is_named():
    with pytest.raises(ValueError, match="'mean' is not one of grpo, dapo, dr_grpo"):
        weigh(MASK_KC, "mean")


def test_means_over_trajectories_by_hand():
    """The untrained token of the second trajectory is left out of its mean."""
    batch = make_batch(TRAINED_KC, segments_BY=SEGMENTS_KC)
    x_BY = jnp.array([[1.0, 3.0, 5.0, 100.0, 6.0], [7.0, 8.0, 8.0, 8.0, 8.0]])
    expected = [[2, 2, 5.5, 5.5, 5.5], [7, 0, 0, 0, 0]]
    assert_close(trajectory_means(x_BY, batch), expected)

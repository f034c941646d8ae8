"""Small batches for the tests of losses and token weights."""

import numpy as np

from ovd_jax.learning.batch import Batch
from ovd_jax.learning.losses import token_weights

MASK_KC = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 1, 0]], bool)


def assert_close(actual, expected, tolerance=1e-6):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


WHOLE_KC = MASK_KC.astype(np.float32)


def make_batch(weights_BY=WHOLE_KC, **fields) -> Batch:
    """Zeros but for `weights_BY` and `fields`."""
    zeros_BY = np.zeros(weights_BY.shape, np.float32)
    integers_BY = zeros_BY.astype(np.int32)
    defaults = dict(
        prompts_BX=integers_BY,
        prompt_lengths_B=integers_BY[:, 0] + 1,
        tokens_BY=integers_BY,
        segments_BY=integers_BY + 1,
        offsets_BY=integers_BY,
        weights_BY=weights_BY,
        teacher_BY=zeros_BY.astype(bool),
        advantages_BY=zeros_BY,
        sampler_logprobs_BY=zeros_BY,
        behavior_logprobs_BY=zeros_BY,
        ref_logprobs_BY=zeros_BY,
    )
    return Batch(**defaults | fields)


AGGREGATIONS = ("grpo", "dapo", "dr_grpo")


def weigh(trained_BY, aggregation, segments_BY=None):
    if segments_BY is None:
        segments_BY = np.ones(trained_BY.shape, np.int32)
    return token_weights(
        trained_BY, np.array(segments_BY), aggregation=aggregation, max_tokens=10
    )


SEGMENTS_KC = np.array([[1, 1, 2, 2, 2], [1, -1, -1, -1, -1]], np.int32)


TRAINED_KC = np.array([[1, 1, 1, 0, 1], [1, 0, 0, 0, 0]], np.float32)

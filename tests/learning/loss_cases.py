"""Small batches for the tests of losses and token weights."""

import numpy as np

from ovd_jax.learning.losses import (
    Batch,
    token_weights,
)

MASK_KC = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 1, 0]], bool)


def assert_close(actual, expected, tolerance=1e-6):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


WHOLE_KC = MASK_KC.astype(np.float32)


def make_batch(weights_KC=WHOLE_KC, **fields) -> Batch:
    """Zeros but for `weights_KC` and `fields`."""
    zeros_KC = np.zeros(weights_KC.shape, np.float32)
    integers_KC = zeros_KC.astype(np.int32)
    defaults = dict(
        prompts_KP=integers_KC,
        prompt_lengths_K=integers_KC[:, 0] + 1,
        tokens_KC=integers_KC,
        segments_KC=integers_KC + 1,
        offsets_KC=integers_KC,
        weights_KC=weights_KC,
        teacher_KC=zeros_KC.astype(bool),
        advantages_KC=zeros_KC,
        sampler_logprobs_KC=zeros_KC,
        behavior_logprobs_KC=zeros_KC,
        ref_logprobs_KC=zeros_KC,
    )
    return Batch(**defaults | fields)


AGGREGATIONS = ("grpo", "dapo", "dr_grpo")


def weigh(trained_KC, aggregation, segments_KC=None):
    if segments_KC is None:
        segments_KC = np.ones(trained_KC.shape, np.int32)
    return token_weights(
        trained_KC, np.array(segments_KC), aggregation=aggregation, max_tokens=10
    )


SEGMENTS_KC = np.array([[1, 1, 2, 2, 2], [1, -1, -1, -1, -1]], np.int32)


TRAINED_KC = np.array([[1, 1, 1, 0, 1], [1, 0, 0, 0, 0]], np.float32)

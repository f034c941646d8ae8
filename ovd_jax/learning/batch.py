"""The arrays of a rollout batch: everything that is sent to the devices."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.models.attention import Layout
from ovd_jax.models.sharding import Array

PADDING = -1  # the segment of slots that hold no token


class TopK(flax.struct.PyTreeNode):
    """The A likeliest tokens at each position."""

    ids: Array  # int32, [..., A]
    logprobs: Array  # float32


class Batch(flax.struct.PyTreeNode):
    """Trajectories behind their prompts: everything that is sent to the devices.

    Each of B packed rows holds one prompt in X slots and its completions in Y slots, in
    bins of `bin_size` slots. No completion crosses the end of a bin.
    """

    prompts_BX: Array  # int32, right-padded
    prompt_lengths_B: Array  # int32, at least 1
    tokens_BY: Array  # int32
    segments_BY: Array  # int32: 1, 2, ... for the completions of a row; PADDING
    offsets_BY: Array  # int32: a token's index in its completion
    weights_BY: Array  # float32: in the loss; 0 if untrained
    teacher_BY: Array  # bool: the token was written by the teacher
    advantages_BY: Array  # float32: constant over a step, or over a trajectory
    sampler_logprobs_BY: Array  # float32: the sampler's; 0 for the teacher's
    behavior_logprobs_BY: Array | None = None  # float32: of the policy when the
    # batch was collected; None: the policy is the same
    ref_logprobs_BY: Array | None = None  # float32: of the frozen reference
    teacher_logprobs_BY: Array | None = None  # float32: of a token-level teacher
    teacher_top: TopK | None = None  # its likeliest tokens at each position
    problems_B: np.ndarray | None = None  # int: rows of one number share a problem
    # and a minibatch; None: all differ. On the host, for `Learner.split`
    bin_size: int = flax.struct.field(pytree_node=False, default=0)

    def layout(self) -> Layout:
        """Positions and visibility of prompt and completions in one row."""
        packs, slots = self.prompts_BX.shape
        lengths_B1 = self.prompt_lengths_B[:, None]
        in_prompt = jnp.zeros((packs, slots), jnp.int32)
        return Layout(
            jnp.concatenate(
                [in_prompt + jnp.arange(slots)[None], lengths_B1 + self.offsets_BY], 1
            ),
            jnp.concatenate([in_prompt, self.segments_BY], 1),
            jnp.concatenate(
                [in_prompt, jnp.broadcast_to(lengths_B1, self.tokens_BY.shape)], 1
            ),
            prompt=slots,
            bin_size=self.bin_size,
        )

    def sources_BY(self) -> jax.Array:
        """The slot of the token before each completion token; its hidden state predicts
        it."""
        slots = self.prompts_BX.shape[1] + jnp.arange(self.tokens_BY.shape[1])
        last_B1 = self.prompt_lengths_B[:, None] - 1
        return jnp.where(self.offsets_BY == 0, last_B1, slots[None] - 1)

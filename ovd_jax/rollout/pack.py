"""Groups to one device batch: the border from host to device."""

from collections.abc import Sequence

import numpy as np

from ovd_jax.learning.losses import Batch
from ovd_jax.rollout.trajectory import Group


def pack(
    groups: Sequence[Group],
    advantages: Sequence[Sequence[Sequence[float]]],
    *,
    length_multiple: int,
    max_tokens: int,
) -> Batch:
    """One row a final trajectory, right-padded to a multiple of `length_multiple`.

    `advantages[p][g][k]` is step k's of rollout g of group p. Every token of the
    completion is trained on, the end token included. The log-probabilities of behavior
    and reference are left at 0, for the learner to fill in. Raises ValueError where a
    row is longer than `max_tokens`; nothing is cut.
    """
    rows = [
        (group.prompt_tokens, rollout.final, steps)
        for group, group_steps in zip(groups, advantages, strict=True)
        for rollout, steps in zip(group.rollouts, group_steps, strict=True)
    ]
    longest = max(len(prompt) + len(final.tokens) for prompt, final, _ in rows)
    if longest > max_tokens:
        raise ValueError(
            f"A trajectory has {longest} tokens with its prompt, over the budget of "
            f"{max_tokens}; raise config.max_prompt_tokens or config.max_new_tokens."
        )
    shape = (len(rows), -(-longest // length_multiple) * length_multiple)
    tokens_BT = np.zeros(shape, np.int32)
    mask_BT = np.zeros(shape, bool)
    teacher_BT = np.zeros(shape, bool)
    advantages_BT = np.zeros(shape, np.float32)
    sampler_BT = np.zeros(shape, np.float32)
    for b, (prompt, final, steps) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(final.tokens)
        tokens_BT[b, :end] = (*prompt, *final.tokens)
        mask_BT[b, start:end] = True
        teacher_BT[b, start:end] = final.from_teacher
        sampler_BT[b, start:end] = final.logprobs
        sizes = np.diff((0, *final.step_ends))
        advantages_BT[b, start:end] = np.repeat(np.asarray(steps, np.float32), sizes)
    return Batch(
        tokens_BT=tokens_BT,
        completion_mask_BT=mask_BT,
        teacher_mask_BT=teacher_BT,
        advantages_BT=advantages_BT,
        sampler_logprobs_BT=sampler_BT,
        behavior_logprobs_BT=np.zeros(shape, np.float32),
        ref_logprobs_BT=np.zeros(shape, np.float32),
    )

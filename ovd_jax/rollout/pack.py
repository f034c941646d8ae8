"""Packs groups into one batch of arrays: the border from host to device."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.learning.batch import PADDING, Batch, TopK
from ovd_jax.rollout.trajectory import Group, Trajectory
from ovd_jax.shapes import bucket, round_up

_TWICE = 1.05  # relative cost of a slot in bins of twice the length, for attention


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of packed rows: a prompt in `prompt` slots, then bins of equal size."""

    prompt: int
    bin_size: int
    bins: int
    microbatch: int  # packed rows on the devices at a time

    @property
    def slots(self) -> int:
        """All slots of a packed row."""
        return self.prompt + self.bin_size * self.bins


@dataclasses.dataclass
class PackedRow:
    """A packed row: a prompt and the bins of completions that share it."""

    prompt: tuple[int, ...]
    bins: list[list[tuple[Trajectory, Sequence[float]]]]
    problem: int  # its index among the trained problems


def pack(
    groups: Sequence[Group],
    advantages: Sequence[Sequence[Sequence[float]]],
    *,
    length_multiple: int,
    max_tokens: int,
    minibatches: int = 1,
    shards: int = 1,
    pairs: bool = False,
) -> tuple[Batch, Shape]:
    """Packs every final trajectory behind the prompt of its group: (batch, shape).

    `advantages[p][g][k]` belongs to step k of rollout g of group p. Completions go into
    bins as long as the longest of them, rounded up to `length_multiple`, or twice as
    long if that leaves fewer slots empty. A group with more bins than a row has gets
    several rows, unless `pairs` keeps it in one. Each of `shards` devices holds at most
    `max_tokens` slots at a time. All weights are 1; the learner distributes them. A
    minibatch without completions gets an empty row. Nothing is cut: raises UserError if
    a prompt and what must share its row exceed `max_tokens`.
    """
    prompt, longest = longest_of(groups, length_multiple)
    options = []
    for bin_size, penalty in ((longest, 1.0), (2 * longest, _TWICE)):
        filled = [
            (group.prompt_tokens, fill(group, group_advantages, bin_size))
            for group, group_advantages in zip(groups, advantages, strict=True)
        ]
        counts = [len(bins) for _, bins in filled if bins] or [1]
        least = max(counts) if pairs else 1
        if prompt + least * bin_size <= max_tokens:
            slots, shape = plan(
                counts, prompt, bin_size, max_tokens, minibatches, shards, least
            )
            options.append((slots * penalty, shape, filled))
        elif bin_size == longest:
            raise UserError(
                f"A prompt and {least} times the longest completion take {prompt} + "
                f"{least * bin_size} tokens, over the budget of {max_tokens}; raise "
                "config.microbatch_tokens."
            )
    _, shape, filled = min(options, key=lambda option: option[0])
    rows = packed_rows(filled, shape, minibatches)
    return to_arrays(rows, shape), shape


def longest_of(groups: Sequence[Group], length_multiple: int) -> tuple[int, int]:
    """Slots for the longest prompt and for the longest completion."""
    prompts = [len(group.prompt_tokens) for group in groups]
    lengths = [len(r.final.tokens) for group in groups for r in group.rollouts]
    longest = round_up(max(lengths, default=1), length_multiple)
    return bucket(max(prompts, default=1)), longest


def packed_rows(
    filled: Sequence[tuple[tuple[int, ...], list[list]]], shape: Shape, minibatches: int
) -> list[PackedRow]:
    """Packed rows of the groups with completions, and empty rows for minibatches
    without any."""
    filled = [(prompt, bins) for prompt, bins in filled if bins]
    rows = [
        PackedRow(prompt, bins[start : start + shape.bins], problem)
        for problem, (prompt, bins) in enumerate(filled)
        for start in range(0, len(bins), shape.bins)
    ]
    return rows + [PackedRow((0,), [], n) for n in range(len(filled), minibatches)]


def fill(
    group: Group, advantages: Sequence[Sequence[float]], bin_size: int
) -> list[list]:
    """Puts a group's trajectories into few bins: longest first, each where it fits."""
    pairs = [
        (rollout.final, steps)
        for rollout, steps in zip(group.rollouts, advantages, strict=True)
    ]
    bins, room = [], []
    for pair in sorted(pairs, key=lambda pair: -len(pair[0].tokens)):
        size = len(pair[0].tokens)
        index = next((i for i, left in enumerate(room) if left >= size), len(bins))
        if index == len(bins):
            bins.append([])
            room.append(bin_size)
        bins[index].append(pair)
        room[index] -= size
    return bins


def plan(
    bin_counts: Sequence[int],
    prompt: int,
    bin_size: int,
    max_tokens: int,
    minibatches: int,
    shards: int = 1,
    least: int = 1,
) -> tuple[int, Shape]:
    """Chooses the shape with the fewest slots on a device: (slots, shape).

    `bin_counts` are those of the groups; a packed row has at least `least` bins. Counts
    on a device are 2^n or 3 x 2^n, so that few shapes are compiled.
    """
    counts = sorted({least, *(factor << n for n in range(16) for factor in (1, 3))})
    costs = {}
    for bins in counts[counts.index(least) :]:
        slots = prompt + bin_size * bins
        if slots > max_tokens or bins >= 2 * max(bin_counts):
            break
        rows = sum(-(-count // bins) for count in bin_counts)
        rows = -(-rows // (minibatches * shards))  # rows of a minibatch on a device
        most = max(x for x in counts if x * slots <= max_tokens)
        fewest = -(-rows // most)
        for rounds in range(fewest, 2 * fewest + 1):  # small parts leave devices idle
            microbatch = min(x for x in counts if x * rounds >= rows)
            shape = Shape(prompt, bin_size, bins, microbatch * shards)
            costs.setdefault(shape, (rounds * microbatch * slots, rounds))
    shape = min(costs, key=lambda shape: costs[shape])
    return costs[shape][0], shape


def to_arrays(rows: Sequence[PackedRow], shape: Shape) -> Batch:
    """The arrays of packed rows, without behavior and reference log-probabilities."""
    count, slots = len(rows), shape.bin_size * shape.bins
    prompts_BX = np.zeros((count, shape.prompt), np.int32)
    tokens_BY, offsets_BY = (np.zeros((count, slots), np.int32) for _ in range(2))
    segments_BY = np.full((count, slots), PADDING, np.int32)
    weights_BY, advantages_BY, sampler_BY = (
        np.zeros((count, slots), np.float32) for _ in range(3)
    )
    teacher_BY = np.zeros((count, slots), bool)
    for k, item in enumerate(rows):
        prompts_BX[k, : len(item.prompt)] = item.prompt
        segment = 0
        for index, completions in enumerate(item.bins):
            end = index * shape.bin_size
            for trajectory, steps in completions:
                segment += 1
                here = slice(end, end := end + len(trajectory.tokens))
                tokens_BY[k, here] = trajectory.tokens
                segments_BY[k, here] = segment
                offsets_BY[k, here] = np.arange(len(trajectory.tokens))
                weights_BY[k, here] = trajectory.loss_mask
                teacher_BY[k, here] = trajectory.from_teacher
                sampler_BY[k, here] = trajectory.logprobs
                sizes = np.diff((0, *trajectory.step_ends))
                values = np.asarray(steps, np.float32)
                advantages_BY[k, here] = np.repeat(values, sizes)
    return Batch(
        prompts_BX=prompts_BX,
        prompt_lengths_B=np.array([len(item.prompt) for item in rows], np.int32),
        tokens_BY=tokens_BY,
        segments_BY=segments_BY,
        offsets_BY=offsets_BY,
        weights_BY=weights_BY,
        teacher_BY=teacher_BY,
        advantages_BY=advantages_BY,
        sampler_logprobs_BY=sampler_BY,
        problems_B=np.array([item.problem for item in rows]),
        bin_size=shape.bin_size,
    )


def with_token_teacher(batch: Batch, read: Callable, top: int) -> Batch:
    """The batch with a served teacher's log-probabilities of its tokens.

    With `top` over 0, also those of the teacher's likeliest tokens. `read` is that of
    `ServedTokens`. A completion without an answer is not trained on.
    """
    places = [
        (k, np.flatnonzero(batch.segments_BY[k] == segment))
        for k in range(len(batch.tokens_BY))
        for segment in range(1, batch.segments_BY[k].max(initial=0) + 1)
    ]
    rows = [
        (
            batch.prompts_BX[k, : batch.prompt_lengths_B[k]].tolist(),
            batch.tokens_BY[k, here].tolist(),
        )
        for k, here in places
    ]
    own_BY = np.zeros(batch.tokens_BY.shape, np.float32)
    ids_BYA = np.zeros((*own_BY.shape, top), np.int32)
    logprobs_BYA = np.zeros(ids_BYA.shape, np.float32)
    weights_BY = np.array(batch.weights_BY)
    for (k, here), (_, tokens), found in zip(places, rows, read(rows), strict=True):
        if found is None:
            weights_BY[k, here] = 0.0
            continue
        for slot, token, by_id in zip(here, tokens, found, strict=True):
            own_BY[k, slot] = by_id[token]
            if not top:
                continue
            likeliest = sorted(by_id.items(), key=lambda pair: -pair[1])[:top]
            ids_BYA[k, slot], logprobs_BYA[k, slot] = zip(*likeliest, strict=True)
    return batch.replace(
        weights_BY=weights_BY,
        teacher_logprobs_BY=own_BY,
        teacher_top=TopK(ids_BYA, logprobs_BYA) if top else None,
    )

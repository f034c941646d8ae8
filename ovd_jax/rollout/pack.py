"""Groups to one batch of arrays: the border from host to device."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.learning.losses import PADDING, Batch, TopK
from ovd_jax.rollout.trajectory import Group, Trajectory
from ovd_jax.shapes import bucket, round_up

_TWICE = 1.05  # cost of a slot in stretches of twice the length: attention's share


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a pack: a prompt in `prompt` slots, then `stretches` of `stretch` slots."""

    prompt: int
    stretch: int
    stretches: int
    microbatch: int  # packs on the devices at a time

    @property
    def slots(self) -> int:
        """All slots of a pack."""
        return self.prompt + self.stretch * self.stretches


@dataclasses.dataclass
class Pack:
    """A prompt and the stretches of completions that share it."""

    prompt: tuple[int, ...]
    stretches: list[list[tuple[Trajectory, Sequence[float]]]]
    problem: int  # its number among those that are trained on


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
    """Every final trajectory behind a prompt that its group shares, and their shape.

    `advantages[p][g][k]` is step k's of rollout g of group p. Completions are put into
    stretches as long as the longest of them, up to a multiple of `length_multiple`, or
    twice as long where that leaves fewer slots empty; a group with more stretches than
    a pack has is given several. At most `max_tokens`
    slots are on each of `shards` devices, which split the packs, at a time. With
    `pairs`, no group is given several packs. All weights are 1, for the learner to
    share out; a minibatch that there is nothing for gets an empty pack.
    Raises UserError where a prompt and what must share its pack exceed `max_tokens`;
    nothing is cut.
    """
    prompt, longest = longest_of(groups, length_multiple)
    options = []
    for stretch, penalty in ((longest, 1.0), (2 * longest, _TWICE)):
        filled = [
            (group.prompt_tokens, fill(group, group_advantages, stretch))
            for group, group_advantages in zip(groups, advantages, strict=True)
        ]
        counts = [len(bins) for _, bins in filled if bins] or [1]
        least = max(counts) if pairs else 1
        if prompt + least * stretch <= max_tokens:
            slots, shape = plan(
                counts, prompt, stretch, max_tokens, minibatches, shards, least
            )
            options.append((slots * penalty, shape, filled))
        elif stretch == longest:
            raise UserError(
                f"A prompt and {least} times the longest completion take {prompt} + "
                f"{least * stretch} tokens, over the budget of {max_tokens}; raise "
                "config.tokens_at_once."
            )
    _, shape, filled = min(options, key=lambda option: option[0])
    packs = cut_into_packs(filled, shape, minibatches)
    return to_arrays(packs, shape), shape


def longest_of(groups: Sequence[Group], length_multiple: int) -> tuple[int, int]:
    """Slots for the longest prompt and for the longest completion."""
    prompts = [len(group.prompt_tokens) for group in groups]
    lengths = [len(r.final.tokens) for group in groups for r in group.rollouts]
    longest = round_up(max(lengths, default=1), length_multiple)
    return bucket(max(prompts, default=1)), longest


def cut_into_packs(
    filled: Sequence[tuple[tuple[int, ...], list[list]]], shape: Shape, minibatches: int
) -> list[Pack]:
    """Packs of the groups that have completions, and empty ones for minibatches that
    get none."""
    filled = [(prompt, bins) for prompt, bins in filled if bins]
    packs = [
        Pack(prompt, bins[start : start + shape.stretches], problem)
        for problem, (prompt, bins) in enumerate(filled)
        for start in range(0, len(bins), shape.stretches)
    ]
    return packs + [Pack((0,), [], n) for n in range(len(filled), minibatches)]


def fill(
    group: Group, advantages: Sequence[Sequence[float]], stretch: int
) -> list[list]:
    """A group's trajectories in few stretches: longest first, each where it fits."""
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
            room.append(stretch)
        bins[index].append(pair)
        room[index] -= size
    return bins


def plan(
    bins: Sequence[int],
    prompt: int,
    stretch: int,
    max_tokens: int,
    minibatches: int,
    shards: int = 1,
    least: int = 1,
) -> tuple[int, Shape]:
    """(slots computed on a device, shape): the fewest, given the stretches of each
    group; a pack has `least` of them or more.

    Counts, on a device, are powers of two or three times one: few shapes are compiled.
    """
    counts = sorted({least, *(factor << n for n in range(16) for factor in (1, 3))})
    costs = {}
    for stretches in counts[counts.index(least) :]:
        slots = prompt + stretch * stretches
        if slots > max_tokens or stretches >= 2 * max(bins):
            break
        packs = sum(-(-count // stretches) for count in bins)
        packs = -(-packs // (minibatches * shards))  # of a minibatch, on a device
        most = max(x for x in counts if x * slots <= max_tokens)
        fewest = -(-packs // most)
        for rounds in range(fewest, 2 * fewest + 1):  # small parts would idle devices
            microbatch = min(x for x in counts if x * rounds >= packs)
            shape = Shape(prompt, stretch, stretches, microbatch * shards)
            costs.setdefault(shape, (rounds * microbatch * slots, rounds))
    shape = min(costs, key=lambda shape: costs[shape])
    return costs[shape][0], shape


def to_arrays(packs: Sequence[Pack], shape: Shape) -> Batch:
    """The arrays of `packs`, still without behavior and reference log-probabilities."""
    count, slots = len(packs), shape.stretch * shape.stretches
    prompts_KP = np.zeros((count, shape.prompt), np.int32)
    tokens_KC, offsets_KC = (np.zeros((count, slots), np.int32) for _ in range(2))
    segments_KC = np.full((count, slots), PADDING, np.int32)
    weights_KC, advantages_KC, sampler_KC = (
        np.zeros((count, slots), np.float32) for _ in range(3)
    )
    teacher_KC = np.zeros((count, slots), bool)
    for k, item in enumerate(packs):
        prompts_KP[k, : len(item.prompt)] = item.prompt
        segment = 0
        for index, completions in enumerate(item.stretches):
            end = index * shape.stretch
            for trajectory, steps in completions:
                segment += 1
                here = slice(end, end := end + len(trajectory.tokens))
                tokens_KC[k, here] = trajectory.tokens
                segments_KC[k, here] = segment
                offsets_KC[k, here] = np.arange(len(trajectory.tokens))
                weights_KC[k, here] = trajectory.counts
                teacher_KC[k, here] = trajectory.from_teacher
                sampler_KC[k, here] = trajectory.logprobs
                sizes = np.diff((0, *trajectory.step_ends))
                values = np.asarray(steps, np.float32)
                advantages_KC[k, here] = np.repeat(values, sizes)
    return Batch(
        prompts_KP=prompts_KP,
        prompt_lengths_K=np.array([len(item.prompt) for item in packs], np.int32),
        tokens_KC=tokens_KC,
        segments_KC=segments_KC,
        offsets_KC=offsets_KC,
        weights_KC=weights_KC,
        teacher_KC=teacher_KC,
        advantages_KC=advantages_KC,
        sampler_logprobs_KC=sampler_KC,
        problems_K=np.array([item.problem for item in packs]),
        stretch=shape.stretch,
    )


def with_token_teacher(batch: Batch, read: Callable, top: int) -> Batch:
    """The batch with what a served teacher says of its tokens: their log-probabilities
    and, with `top` over 0, its likeliest ones. Where it says nothing of a completion,
    that is not trained on.

    `read` is that of `ServedTokens`.
    """
    places = [
        (k, np.flatnonzero(batch.segments_KC[k] == segment))
        for k in range(len(batch.tokens_KC))
        for segment in range(1, batch.segments_KC[k].max(initial=0) + 1)
    ]
    rows = [
        (
            batch.prompts_KP[k, : batch.prompt_lengths_K[k]].tolist(),
            batch.tokens_KC[k, here].tolist(),
        )
        for k, here in places
    ]
    own_KC = np.zeros(batch.tokens_KC.shape, np.float32)
    ids_KCA = np.zeros((*own_KC.shape, top), np.int32)
    logprobs_KCA = np.zeros(ids_KCA.shape, np.float32)
    weights_KC = np.array(batch.weights_KC)
    for (k, here), (_, tokens), found in zip(places, rows, read(rows), strict=True):
        if found is None:
            weights_KC[k, here] = 0.0
            continue
        for slot, token, by_id in zip(here, tokens, found, strict=True):
            own_KC[k, slot] = by_id[token]
            if not top:
                continue
            likeliest = sorted(by_id.items(), key=lambda pair: -pair[1])[:top]
            ids_KCA[k, slot], logprobs_KCA[k, slot] = zip(*likeliest, strict=True)
    return batch.replace(
        weights_KC=weights_KC,
        teacher_logprobs_KC=own_KC,
        teacher_top=TopK(ids_KCA, logprobs_KCA) if top else None,
    )

"""From a training step to the batch that it trains on."""

import functools
from typing import Any

from ml_collections import ConfigDict

from ovd_jax.errors import TeacherError
from ovd_jax.learning.batch import Batch
from ovd_jax.models.sharding import row_shards
from ovd_jax.models.transformer import Transformer
from ovd_jax.multihost.processes import check_same
from ovd_jax.reporting.monitor import Stopwatch
from ovd_jax.rollout.buffer import RolloutBuffer, is_flat
from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.rollout.pack import Shape, pack, with_token_teacher
from ovd_jax.rollout.trajectory import Group
from ovd_jax.sampling.completion import Stream
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.seeds import derive
from ovd_jax.training.methods import method_of
from ovd_jax.training.objectives import is_served, likeliest_tokens
from ovd_jax.training.prefetch import LockedSampler

LONGEST_RUN = 1_000_000  # steps


def collect(
    config: ConfigDict,
    collector: Collector,
    sampler: Sampler | LockedSampler,
    model: Transformer,
    step: int,
) -> tuple[RolloutBuffer, dict]:
    """Collects the groups of one step: (buffer with advantages, metrics of the costs).

    Groups whose rewards are all equal are replaced by groups of further problems, up to
    `config.refills` times; enough for one a minibatch are kept in any case.
    """
    collector.begin(step)
    watch, teacher = Stopwatch(), collector.teacher
    levels = teacher.levels if teacher else 0
    kept, flat = [], []  # (group, its advantages)
    for draw in range(config.refills + 1):
        missing = config.problems_per_step - len(kept)
        if not missing:
            break
        with watch.time("collecting"):
            groups = collect_groups(
                config, collector, sampler, model, step, draw, missing, watch
            )
        for group in groups:
            pair = group, advantages_of(config, collector, group, levels)
            (flat if config.refills and is_flat(pair[1]) else kept).append(pair)
    missing = max(config.minibatches - len(kept), 0)
    kept, skipped = [*kept, *flat[:missing]], [group for group, _ in flat[missing:]]
    groups, advantages = zip(*kept, strict=True)
    check_judged(config, groups, step)
    buffer = RolloutBuffer(groups, advantages, levels, tuple(skipped))
    costs = collector.metrics(groups) | (teacher.metrics() if teacher else {})
    return buffer, watch.take() | costs


def check_judged(config: ConfigDict, groups: tuple[Group, ...], step: int) -> None:
    """Raises TeacherError if the teacher left too few groups for the minibatches."""
    judged = sum(bool(group.rollouts) for group in groups)
    if any(group.dropped for group in groups) and judged < config.minibatches:
        raise TeacherError(
            f"The teacher gave too few scores in step {step}: only {judged} of "
            f"{len(groups)} groups are left for {config.minibatches} minibatches. Set "
            "teacher.on_failure to wait; the same command goes on from the checkpoint."
        )


def collect_groups(
    config: ConfigDict,
    collector: Collector,
    sampler: Sampler | LockedSampler,
    model: Transformer,
    step: int,
    draw: int,
    count: int,
    watch: Stopwatch,
) -> list[Group]:
    """Groups of the first `count` problems of a step's draw.

    A teacher with `begin` scores some trajectories while others are sampled.
    """
    # Later draws take the problems of steps that no run reaches.
    place = step + draw * LONGEST_RUN
    problems = collector.task.problems(place, config.problems_per_step)[:count]
    check_same(f"the problems of step {step}", problems)
    generate = watch.timed("sample", functools.partial(sampler, model))
    stream: Stream | None = None
    if hasattr(collector.teacher, "begin"):
        stream = watch.timed_items("sample", functools.partial(sampler.stream, model))
    purpose = ("collect", step, draw) if draw else ("collect", step)
    return method_of(config).collect(
        config, collector, problems, generate,
        seed=derive(config.seed, *purpose), stream=stream,
    )  # fmt: skip


def advantages_of(
    config: ConfigDict, collector: Collector, group: Group, levels: int
) -> list[list[float]]:
    """`group_advantages` with the knobs of the config and the rules of the method."""
    return group_advantages(
        group,
        credit=collector.rules.credit,
        credit_weight=config.credit_weight,
        levels=levels,
        baseline=config.baseline,
        scale_by_std=config.scale_by_std,
    )


def to_batch(
    config: ConfigDict,
    buffer: RolloutBuffer,
    token_teacher: Any = None,
    *,
    pairs: bool = False,
) -> tuple[Batch, Shape]:
    """Packs the groups that the method trains on into arrays; with `pairs`, those of a
    group share a packed row."""
    batch, shape = pack(
        *method_of(config).training_groups(buffer),
        length_multiple=config.length_multiple,
        max_tokens=config.microbatch_tokens,
        minibatches=config.minibatches,
        shards=row_shards(),
        pairs=pairs,
    )
    check_same("the shape of a batch", (shape, batch.tokens_BY.shape))
    if is_served(token_teacher):
        batch = with_token_teacher(batch, token_teacher.read, likeliest_tokens(config))
    return batch, shape

"""From the number of a step to the batch that it trains on."""

import functools

import jax

from ovd_jax.errors import TeacherError
from ovd_jax.models.sharding import row_shards
from ovd_jax.multihost.processes import check_same
from ovd_jax.reporting.monitor import Stopwatch
from ovd_jax.rollout.buffer import RolloutBuffer, is_flat
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.rollout.pack import pack, with_token_teacher
from ovd_jax.seeds import derive
from ovd_jax.training.methods import is_served, likeliest_tokens, method_of, preferences

LONGEST_RUN = 1_000_000  # steps


def collect(config, collector, sampler, model, step) -> tuple[RolloutBuffer, dict]:
    """What the method collects in one step, with advantages, and what it cost.

    Groups without spread are left out for others of further problems, as long as
    `config.refills` has it; a minibatch's worth is kept whatever they are.
    """
    collector.begin(step)
    watch, teacher = Stopwatch(), collector.teacher
    levels = teacher.levels if teacher else 0
    found, flat = [], []  # (group, its advantages)
    for draw in range(config.refills + 1):
        missing = config.problems_per_step - len(found)
        if not missing:
            break
        with watch.time("collecting"):
            groups = collect_groups(
                config, collector, sampler, model, step, draw, missing, watch
            )
        for group in groups:
            pair = group, advantages_of(config, collector, group, levels)
            (flat if config.refills and is_flat(pair[1]) else found).append(pair)
    kept = max(config.minibatches - len(found), 0)
    found, skipped = [*found, *flat[:kept]], [group for group, _ in flat[kept:]]
    groups, advantages = zip(*found, strict=True)
    taught = sum(bool(group.rollouts) for group in groups)
    if any(group.dropped for group in groups) and taught < config.minibatches:
        raise TeacherError(
            f"The teacher gave too few scores in step {step}: only {taught} of "
            f"{len(groups)} groups are left for {config.minibatches} minibatches. Set "
            "teacher.on_failure to wait; the same command goes on from the checkpoint."
        )
    buffer = RolloutBuffer(groups, advantages, levels, tuple(skipped))
    costs = collector.metrics(groups) | (teacher.metrics() if teacher else {})
    return buffer, watch.take() | costs


def collect_groups(
    config, collector, sampler, model, step: int, draw: int, count: int, watch
):
    """Groups of `count` problems, of those that draw number `draw` of a step has.

    Where the teacher answers beside this process, it scores while others are sampled.
    """
    # Later draws take what would come after any run: no step's own problems.
    place = step + draw * LONGEST_RUN
    problems = collector.task.problems(place, config.problems_per_step)[:count]
    check_same(f"the problems of step {step}", problems)
    generate = watch.timed("sample", functools.partial(sampler, model))
    stream = None
    if hasattr(collector.teacher, "begin") and jax.process_count() == 1:
        stream = watch.timed_items("sample", functools.partial(sampler.stream, model))
    purpose = ("collect", step, draw) if draw else ("collect", step)
    return method_of(config).collect(
        config, collector, problems, generate,
        seed=derive(config.seed, *purpose), stream=stream,
    )  # fmt: skip


def advantages_of(config, collector, group, levels: int):
    """`group_advantages` as `config` and the method have it."""
    return group_advantages(
        group,
        credit=collector.rules.credit,
        credit_weight=config.credit_weight,
        levels=levels,
        baseline=config.baseline,
        scale_by_std=config.scale_by_std,
    )


def to_batch(config, buffer: RolloutBuffer, tokens=None):
    """The arrays of what of a rollout buffer is trained on, and their shape; `tokens`
    is the token-level teacher."""
    method = method_of(config)
    batch, shape = pack(
        *method.select(buffer),
        length_multiple=config.length_multiple,
        max_tokens=config.tokens_at_once,
        minibatches=config.minibatches,
        shards=row_shards(),
        together=method.select is preferences,
    )
    check_same("the shape of a batch", (shape, batch.tokens_KC.shape))
    if is_served(tokens):
        batch = with_token_teacher(batch, tokens.read, likeliest_tokens(config))
    return batch, shape

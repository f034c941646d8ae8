"""The data that a config names: the made-up world beside files and the hub."""

from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.data import rows
from ovd_jax.toy.world import world_named, world_problems


def load_problems(data: str, split: str) -> tuple[Problem, ...]:
    """The problems of one split, "train" or "eval": those of the made-up world for
    "world" ("world:1" for another seed), else what `rows.load_problems` reads."""
    if world := world_named(data):
        return world_problems(world, split)
    return rows.load_problems(data, split)

"""Search engines that a student may ask; a new one is named in `make_engine`."""

from collections.abc import Callable
from pathlib import Path

from ovd_jax.client.cache import DiskCache
from ovd_jax.errors import UserError
from ovd_jax.paths import cache_dir
from ovd_jax.search.engine import Engine, Nothing, Search

BACKENDS = ("none", "bm25", "http", "simulated")


def make_search(config, *, training: bool, make_writer: Callable) -> Search:
    """The engine of `config.search`; one that simulates sees golds in `training` only.

    `make_writer()` gives the model of such a one: see `simulated.Writer`.
    """
    options = config.search
    return Search(
        make_engine(config, make_writer),
        cache=DiskCache(options.cache) if options.cache else None,
        on_failure=options.on_failure,
        with_golds=training,
    )


def make_engine(config, make_writer: Callable) -> Engine:
    """The engine that `config.search.backend` names. Raises UserError."""
    options = config.search
    if options.backend == "none":
        return Nothing()
    if options.backend == "bm25":
        from ovd_jax.search.bm25 import Bm25
        from ovd_jax.search.corpus import write_corpus
        from ovd_jax.toy.world import world_named  # which needs this room's records

        folder = Path(options.index_dir or cache_dir() / "bm25")
        corpus = options.corpus
        if world := world_named(corpus):
            corpus = write_corpus(world.documents(), folder)
        return Bm25(corpus, topk=options.topk, cache=folder)
    if options.backend == "http":
        from ovd_jax.search.http import Http

        names = ("topk", "timeout_s", "retries")
        return Http(options.url, **{name: options[name] for name in names})
    if options.backend == "simulated":
        from ovd_jax.search.simulated import Simulated, noise_share
        from ovd_jax.search.simulator_prompts import find_prompt

        start, end = options.noise
        return Simulated(
            make_writer(),
            prompt=find_prompt(options.prompt),
            topk=options.topk,
            share=lambda step: noise_share(step, config.num_steps, start, end),
        )
    raise UserError(
        f"search.backend {options.backend!r} is not one of {', '.join(BACKENDS)}."
    )

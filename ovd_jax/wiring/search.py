"""The search engine. One of your own is
`config.search.backend=path/to/file.py:Class`."""

import functools
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.client.cache import DiskCache
from ovd_jax.errors import UserError
from ovd_jax.models.folders import fingerprint
from ovd_jax.own_code import build, names_code
from ovd_jax.paths import cache_dir
from ovd_jax.search.engine import Engine, Nothing, Search
from ovd_jax.search.pool import SearchBatch, SearchThreads
from ovd_jax.search.simulated import (
    LocalWriter,
    ServedWriter,
    Simulated,
    Writer,
    noise_share,
)
from ovd_jax.search.simulator_prompts import find_prompt
from ovd_jax.toy.world import world_named
from ovd_jax.wiring.models import (
    find_model,
    load_model,
    load_tokenizer,
    text_sampler,
)
from ovd_jax.wiring.servers import make_transport

BACKENDS = ("none", "bm25", "http", "simulated")


def make_search(config: ConfigDict, *, training: bool) -> Search:
    """The engine of `config.search`; one that simulates sees golds in `training`
    only."""
    options = config.search
    return Search(
        make_engine(config),
        cache=DiskCache(options.cache) if options.cache else None,
        on_failure=options.on_failure,
        with_golds=training,
    )


def make_engine(config: ConfigDict) -> Engine:
    """The engine that `config.search.backend` names. Raises UserError."""
    options = config.search
    if names_code(options.backend):
        return build(options.backend, "search.backend", Engine, config)
    if options.backend == "none":
        return Nothing()
    if options.backend == "bm25":
        from ovd_jax.search.bm25 import Bm25
        from ovd_jax.search.corpus import write_corpus

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
        start, end = options.noise
        return Simulated(
            simulator(config),
            prompt=find_prompt(options.prompt),
            topk=options.topk,
            share=lambda step: noise_share(step, config.num_steps, start, end),
        )
    raise UserError(
        f"search.backend {options.backend!r} is not one of {', '.join(BACKENDS)}."
    )


def simulator(config: ConfigDict) -> Writer:
    """The model that makes up documents, behind `config.search.url` or in this
    process."""
    options = config.search
    chat = find_prompt(options.prompt).chat
    if options.url:
        return ServedWriter(
            make_transport(
                options.url, options, name=options.served_name, knob="search.url"
            ),
            chat=chat,
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
        )
    folder = find_model(options.model, "teacher")
    tokenizer = load_tokenizer(folder, config.date)
    sampler = text_sampler(config, options, folder, tokenizer)
    return LocalWriter(
        functools.partial(sampler, load_model(folder, config)),
        tokenizer,
        chat=chat,
        identity={
            "model": fingerprint(folder),
            "dtype": config.compute_dtype,
            "temperature": options.temperature,
            "max_tokens": options.max_new_tokens,
        },
    )


def make_pool(config: ConfigDict, *, training: bool) -> SearchThreads | SearchBatch:
    """The engine of `config.search`, in threads, or called by all processes in step
    where it is a model in this process."""
    backend = make_search(config, training=training)
    if config.search.backend == "simulated" and not config.search.url:
        return SearchBatch(backend)
    return SearchThreads(backend)

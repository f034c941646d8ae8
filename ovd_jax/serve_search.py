"""Serves BM25 over a corpus with the interface of Search-R1's retrieval server."""

import contextlib
import time
from collections import Counter
from pathlib import Path

import uvicorn
from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.paths import cache_dir
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.serve import http_options, make_app

_LAST_ANSWERS_S = 2  # for requests that are open when the server is interrupted


def main(config: ConfigDict) -> None:
    """Serves until it is interrupted."""
    started, queries = time.time(), Counter()
    folder = Path(config.index_dir or cache_dir() / "bm25")
    engine = Bm25(config.corpus, topk=config.topk, cache=folder)
    url = f"http://{config.host}:{config.port}/retrieve"
    print(f"{len(engine)} passages at {url}", flush=True)
    app = make_app(
        engine, config.topk, queries, timeout_s=config.timeout_s, docs=config.docs
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(
            app, host=config.host, port=config.port, log_level="warning",
            timeout_graceful_shutdown=_LAST_ANSWERS_S, **http_options(config.timeout_s),
        )  # fmt: skip
    flags.summary(
        url=url,
        passages=len(engine),
        queries=queries["answered"],
        seconds=round(time.time() - started, 1),
    )

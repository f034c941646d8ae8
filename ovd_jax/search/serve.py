"""A retrieval server with the interface of Search-R1: BM25 over a corpus."""

import contextlib
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import fastapi
import pydantic
import uvicorn

from ovd_jax import flags
from ovd_jax.paths import cache_dir
from ovd_jax.search.base import Document
from ovd_jax.search.bm25 import Bm25

MAX_QUERIES, MAX_TOPK = 1024, 100  # of a request
MAX_QUERY = 4096  # characters; what is over is not looked at


class Asked(pydantic.BaseModel):
    """The body of a request; `topk` None takes the server's."""

    queries: Annotated[list[str], pydantic.Field(max_length=MAX_QUERIES)]
    topk: Annotated[int, pydantic.Field(ge=1, le=MAX_TOPK)] | None = None
    return_scores: bool = False


def make_app(engine: Bm25, topk: int, counts: Counter) -> fastapi.FastAPI:
    """The application: POST /retrieve and GET /health; `counts` counts queries."""
    app = fastapi.FastAPI(title="ovd_jax search")

    @app.post("/retrieve")
    def retrieve(asked: Asked) -> dict:  # FastAPI runs it in a thread
        found = [
            engine.best(query[:MAX_QUERY], asked.topk or topk)
            for query in asked.queries
        ]
        counts["answered"] += len(found)
        return {
            "result": [
                [entry(document, asked.return_scores) for document in documents]
                for documents in found
            ]
        }

    @app.get("/health")
    def health() -> dict:
        return {"status": "ok", "passages": len(engine)}

    return app


def entry(document: Document, with_score: bool) -> dict:
    """A document as Search-R1's server gives it."""
    contents = f"{document.title}\n{document.text}"
    inner = {"id": document.id, "contents": contents}
    return {"document": inner, "score": document.score} if with_score else inner


def main(config):
    """Serves until it is interrupted."""
    started, queries = time.time(), Counter()
    folder = Path(config.index_dir or cache_dir() / "bm25")
    engine = Bm25(config.corpus, topk=config.topk, cache=folder)
    url = f"http://{config.host}:{config.port}/retrieve"
    print(f"{len(engine)} passages at {url}", flush=True)
    app = make_app(engine, config.topk, queries)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, host=config.host, port=config.port, log_level="warning")
    flags.summary(
        url=url,
        passages=len(engine),
        queries=queries["answered"],
        seconds=round(time.time() - started, 1),
    )

"""A retrieval server with the interface of Search-R1: BM25 over a corpus."""

from collections import Counter
from typing import Annotated

import fastapi
import pydantic
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ovd_jax.search.base import Document
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.deadlines import with_deadlines
from ovd_jax.search.guard import Guard

MAX_QUERIES, MAX_TOPK = 1024, 100  # of a request
MAX_QUERY = 4096  # characters; what is over is not looked at
MAX_BYTES = 2**20  # of a request's body


class Asked(pydantic.BaseModel):
    """The body of a request; without `topk` the server's own is used."""

    queries: Annotated[list[str], pydantic.Field(max_length=MAX_QUERIES)]
    topk: Annotated[int, pydantic.Field(ge=1, le=MAX_TOPK)] | None = None
    return_scores: bool = False


def make_app(
    engine: Bm25,
    topk: int,
    counts: Counter,
    *,
    timeout_s: float = 60.0,
    docs: bool = False,
) -> Guard:
    """The application: POST /retrieve and GET /health, and the pages /docs if `docs`;
    `counts` counts queries. A request ends after `timeout_s` seconds."""
    app = fastapi.FastAPI(
        title="ovd_jax search",
        docs_url="/docs" if docs else None,
        openapi_url="/openapi.json" if docs else None,
        redoc_url=None,
    )

    @app.exception_handler(RequestValidationError)
    async def refused(_, error: RequestValidationError) -> JSONResponse:
        # FastAPI would send back what it was sent.
        detail = [{"loc": e["loc"], "msg": e["msg"]} for e in error.errors()]
        return JSONResponse({"detail": detail}, status_code=422)

    @app.post("/retrieve")
    async def retrieve(asked: Asked) -> dict:
        result = [
            # In a thread each, so that the time limit is checked in between.
            await run_in_threadpool(engine.best, query[:MAX_QUERY], asked.topk or topk)
            for query in asked.queries
        ]
        counts["answered"] += len(result)
        with_scores = asked.return_scores
        return {"result": [[entry(x, with_scores) for x in row] for row in result]}

    @app.get("/health")
    def health() -> dict:
        return {"status": "ok", "passages": len(engine)}

    return Guard(app, most_bytes=MAX_BYTES, timeout_s=timeout_s)


def http_options(timeout_s: float, *, headers_s: float = 10.0) -> dict:
    """Options of uvicorn: the headers of a request come within `headers_s` seconds, an
    answer is taken within `timeout_s`, and there are no web sockets."""
    protocol = with_deadlines(headers_s=headers_s, answer_s=timeout_s)
    return {"http": protocol, "ws": "none"}


def entry(document: Document, with_score: bool) -> dict:
    """A document in the format of Search-R1's server."""
    contents = f"{document.title}\n{document.text}"
    inner = {"id": document.id, "contents": contents}
    return {"document": inner, "score": document.score} if with_score else inner

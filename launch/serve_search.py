"""Serve BM25 over a corpus, with the interface of Search-R1's retrieval server.

    python launch/serve_search.py --config.corpus=CORPUS.jsonl
    python launch/train.py --config=configs/webqa.py --config.search.backend=http \
        --config.search.url=http://127.0.0.1:8001/retrieve

Needs `pip install 'ovd_jax[search]'`. Ctrl-C ends it; the last line on stdout is then a
summary in JSON.
"""

from ovd_jax.cli import flags
from ovd_jax.errors import UserError


def main(config):
    """Serves; `--help` works without the server's libraries."""
    try:
        from ovd_jax import serve_search
    except ImportError as error:
        raise UserError(
            f"A server needs more ({error}): pip install 'ovd_jax[search]'."
        ) from None
    serve_search.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="serve_search")


if __name__ == "__main__":
    run()

"""An ASGI application behind the server of launch/serve_search.py."""

import contextlib
import socket
import threading
import time

import uvicorn

from ovd_jax.search.serve import http_options


@contextlib.contextmanager
def serving(app, **options):
    """An ASGI application in a thread, as long as the block runs: its URL."""
    http = http_options(**{"timeout_s": 60.0} | options)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", **http))
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()

"""A server that shows the likeliest tokens at each place of a prompt, as vLLM does."""

import contextlib
import json
from http.server import BaseHTTPRequestHandler

from fakes import TOKENIZER, served


def place(token: int, top: int, shift: int = 0) -> dict:
    """Tokens 1, 2, ... by falling probability, and the one that was sent, last."""
    shown = dict.fromkeys([*range(1, top + 1), token])
    return {
        str(id_): {
            "logprob": -1.0 - rank,
            "rank": rank + 1,
            "decoded_token": TOKENIZER.decode([(id_ + shift) % len(TOKENIZER)]),
        }
        for rank, id_ in enumerate(shown)
    }


@contextlib.contextmanager
def server(*, shift=0, shows=True, failures=0, longest=999):
    """`failures` requests after the first are answered with a place too few; more than
    3 tokens a place are refused."""
    left = [failures]
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, body):
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            self.answer({"data": [{"id": "teacher", "root": "weights"}]})

        def do_POST(self):
            size = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(size))
            top = body["prompt_logprobs"]
            places = [None, *(place(t, top, shift) for t in body["prompt"][1:])]
            if top > 3:
                self.send_error(400, "at most 3 prompt_logprobs")
                return
            if len(body["prompt"]) > longest:
                self.send_error(400, "maximum context length")
                return
            seen.append(body)
            if len(seen) > 1 and left[0]:
                left[0] -= 1
                places.pop()
            choice = {"text": "", "finish_reason": "length"}
            if shows:
                choice["prompt_logprobs"] = places
            self.answer({"model": "teacher", "choices": [choice]})

    with served(Handler) as url:
        yield f"{url}/v1"

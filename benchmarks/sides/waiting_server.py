"""An OpenAI-compatible server that costs next to nothing: it answers each request with
the same scores after a fixed time, however many there are.

    python benchmarks/sides/waiting_server.py SECONDS

Prints its URL. GET /v1/at_once gives the mean number of requests that it had at a time
since the last such question, and the most.
"""

import asyncio
import json
import sys
import time

TOP = [{"token": str(n), "logprob": -0.1 - n, "bytes": [48 + n]} for n in range(20)]
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "message": {"role": "assistant", "content": "7"},
    "logprobs": {"content": [TOP[7] | {"top_logprobs": TOP}]},
}
SCORES = {
    "id": "0", "object": "chat.completion", "created": 0, "model": "waiting",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 400, "completion_tokens": 1, "total_tokens": 401},
}  # fmt: skip
MODELS = {"object": "list", "data": [{"id": "waiting", "object": "model"}]}


def response(body: dict) -> bytes:
    """An HTTP response with a JSON body."""
    content = json.dumps(body).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(content)}\r\n\r\n".encode() + content


class Load:
    """How many requests there are at a time."""

    def __init__(self):
        self.now = 0
        self.reset()

    def reset(self) -> None:
        """Forgets what was before."""
        self._sum, self._since, self._busy, self.most = 0.0, time.monotonic(), 0.0, 0

    def add(self, change: int) -> None:
        """Takes note of a request that came or was answered."""
        passed = time.monotonic() - self._since
        self._sum += passed * self.now
        self._busy += passed if self.now else 0.0
        self._since += passed
        self.now += change
        self.most = max(self.most, self.now)

    def taken(self) -> dict:
        """Mean, while there was any, and most."""
        self.add(0)
        found = {"mean": self._sum / (self._busy or 1.0), "most": self.most}
        self.reset()
        return found


class Connection(asyncio.Protocol):
    """One client's requests, one after the other."""

    def __init__(self, seconds: float, load: Load):
        self._seconds, self._load = seconds, load
        self._read = b""
        self._scores, self._models = response(SCORES), response(MODELS)

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower().partition(b"content-length:")[2]
        size = int(fields.split(b"\r\n")[0] or 0)
        if len(body) < size:
            return
        self._read = body[size:]
        if b"/at_once" in head.split(b"\r\n")[0]:
            self._transport.write(response(self._load.taken()))
        elif head.startswith(b"GET"):
            self._transport.write(self._models)
        else:
            self._load.add(1)
            asyncio.get_running_loop().call_later(self._seconds, self._answer)

    def _answer(self):
        self._load.add(-1)
        self._transport.write(self._scores)


async def main(seconds: float) -> None:
    """Serves until it is killed."""
    load = Load()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(seconds, load), "127.0.0.1", 0, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))

"""Parts of benchmarks/teacher.py that need no model: what our client costs beside the
`openai` package's, and what a server that hangs costs."""

import asyncio
import contextlib
import functools
import json
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.transport import Transport

SERVER = Path(__file__).parent / "sides" / "waiting_server.py"
ANSWERS_AFTER = 0.1  # seconds
AT_ONCE = 128
REQUESTS = 2560  # a batch
ROUNDS = 3  # of both clients in turn; the median counts
FEW_AT_ONCE, FEW = 16, 480  # with a server that hangs
TIMEOUT = 4.0  # seconds, there
BODY = {
    "messages": [{"role": "user", "content": "Is this step right? " * 80}],
    "max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 20,
}  # fmt: skip


@contextlib.contextmanager
def waiting_server() -> Iterator[tuple[str, subprocess.Popen]]:
    """A server in a process of its own, as long as the block runs: (URL, process)."""
    command = [sys.executable, str(SERVER), str(ANSWERS_AFTER)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()


def at_once(url: str) -> dict:
    """What the server had at a time since the last call."""
    with urllib.request.urlopen(f"{url}/at_once", timeout=30) as page:
        return json.load(page)


@contextlib.contextmanager
def our_client(
    urls: list[str], max_concurrency: int, timeout_s: float
) -> Iterator[Transport]:
    """Our client, connected, as long as the block runs."""
    transport = Transport(
        urls, name="", key=None, timeout_s=timeout_s, retries=4, wait=False,
        max_concurrency=max_concurrency, accounting=Accounting(),
    )  # fmt: skip
    try:
        transport.run([transport.connect])
        yield transport
    finally:
        transport.close()


def our_batch(transport: Transport, requests: int) -> None:
    """So many requests, as OpenAITeacher makes them."""
    transport.run(
        [
            functools.partial(
                transport.post, "/chat/completions", BODY,
                priority=f"{number:06}", affinity=number, check=lambda reply: None,
            )
            for number in range(requests)
        ]
    )  # fmt: skip


async def their_batch(url: str) -> None:
    """The same through the client of the `openai` package, and nothing around it."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", timeout=60) as client:

        async def one():
            async with turns:
                await client.chat.completions.create(model="waiting", **BODY)

        await asyncio.gather(*[one() for _ in range(REQUESTS)])


def measure_throughput(_) -> list[dict]:
    """The same batch through each client, at most AT_ONCE requests at once."""
    rows = {"openai": [], "ours": []}
    with waiting_server() as (url, _), our_client([url], AT_ONCE, 60.0) as ours:
        batches = {
            "openai": lambda: asyncio.run(their_batch(url)),
            "ours": lambda: our_batch(ours, REQUESTS),
        }
        our_batch(ours, REQUESTS)  # until the limit has grown
        for _ in range(ROUNDS):
            for name, batch in batches.items():
                at_once(url)
                cpu, started = time.process_time(), time.perf_counter()
                batch()
                seconds = time.perf_counter() - started
                load = at_once(url)
                rows[name].append(
                    {
                        "requests_per_second": REQUESTS / seconds,
                        "client_cpu_ms": (time.process_time() - cpu) / REQUESTS * 1e3,
                        "mean_at_once": load["mean"],
                        "most_at_once": load["most"],
                    }
                )
    medians = {name: median(measured) for name, measured in rows.items()}
    bare = medians["openai"]["requests_per_second"]
    return [
        {"client": name, **row, "of_openai": row["requests_per_second"] / bare}
        for name, row in medians.items()
    ]


def median(rows: list[dict]) -> dict:
    """Of each column."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def measure_stopped(_) -> list[dict]:
    """A batch with one server, with two, and with one of two stopped: before, and in
    the middle."""
    seconds = {}

    def timed(name: str, transport: Transport) -> None:
        started = time.perf_counter()
        our_batch(transport, FEW)
        seconds[name] = time.perf_counter() - started

    with waiting_server() as (first, _), waiting_server() as (second, process):
        with our_client([first], FEW_AT_ONCE, TIMEOUT) as one:
            our_batch(one, FEW)
            timed("one", one)
        with our_client([first, second], FEW_AT_ONCE, TIMEOUT) as two:
            our_batch(two, FEW)
            timed("two", two)
            process.send_signal(signal.SIGSTOP)
            timed("one of two stopped before", two)
            process.send_signal(signal.SIGCONT)
            our_batch(two, FEW)
            stop = functools.partial(process.send_signal, signal.SIGSTOP)
            late = threading.Timer(seconds["two"] / 3, stop)
            late.start()
            timed("one of two stopped meanwhile", two)
    bound = 1.5 * seconds["one"] + TIMEOUT
    return [
        {
            "servers": name,
            "seconds": taken,
            "timeout_s": TIMEOUT,
            "of_bound": taken / bound,
        }
        for name, taken in seconds.items()
    ]


PARTS = {"throughput": measure_throughput, "stopped": measure_stopped}

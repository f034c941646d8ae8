"""What the order of questions, overlap and asynchronous batches gain, on a real vLLM.

    python launch/fetch_smollm2.py
    python benchmarks/teacher.py
    python benchmarks/teacher.py --config.parts="('orders',)"    # the others stay
    python benchmarks/teacher.py --config.parts="('throughput', 'stopped')"  # no vLLM

Starts vLLM on SmolLM2 by launch/serve_teacher.sh, with room in its cache for CACHE
tokens, a small part of what is asked, as in a long run. Then

- the questions on the steps of some solutions, in four orders: the share of their
  tokens that vLLM has in its prefix cache, and the time;
- one batch collected with scoring after, and during, sampling;
- a few steps of training with each batch collected before, and during, the update.

Two parts need no vLLM (benchmarks/client.py): our client beside the openai package's,
and a batch when one of two servers hangs.

Student, learner and vLLM share this machine. Writes benchmarks/results/teacher.json.
"""

import asyncio
import contextlib
import functools
import random
import re
import socket
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import client
import openai
import record

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.reporting import monitor
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.rollout.collect import Collector
from ovd_jax.tasks.data.rows import load_problems
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.teacher.requests import score_text
from ovd_jax.training.methods import rules
from ovd_jax.wiring.models import find_model, load_model, load_tokenizer
from ovd_jax.wiring.student import student_sampler
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.teacher import make_teacher

ROOT = Path(__file__).resolve().parent.parent
CACHE = 2560  # tokens in vLLM's cache
BLOCK = 32  # tokens of a block of it, the least that vLLM's CPU backend can have
PROBLEMS, SOLUTIONS = 6, 4  # questions are on the steps of so many
AT_ONCE = 4  # questions out at a time
LOGGED = (
    "staleness", "importance_weight", "importance_capped", "seconds_sample",
    "seconds_teacher", "seconds_teacher_waited", "seconds_update",
)  # fmt: skip
STARTING = 1800  # seconds: vLLM may have to be installed


def main(config, output):
    """Runs the measurements against one server."""
    started = time.time()
    monitor.enable_compilation_cache()
    with contextlib.ExitStack() as stack:
        if not config.teacher.url and not set(config.parts) <= {*client.PARTS}:
            url = stack.enter_context(served(config))
            with config.unlocked():
                config.teacher.url = url
        result = {}
        for name in config.parts:
            result[name] = PARTS[name](config)
            print(f"{name}: {result[name]}", flush=True)  # of use if a later one fails
    output.write_parts(result)
    print_tables(result)
    flags.summary(**result, seconds=round(time.time() - started, 1))


@contextlib.contextmanager
def served(config) -> Iterator[str]:
    """vLLM on SmolLM2, as long as the block runs: its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = find_model(config.teacher.model, "teacher")
    options = ["--max-model-len", "2048", "--block-size", str(BLOCK)]
    options += ["--num-gpu-blocks-override", str(CACHE // BLOCK)]
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    path = Path(config.run_dir) / "vllm.log"
    command = ["bash", str(ROOT / "launch/serve_teacher.sh"), str(folder), str(port)]
    with path.open("w") as log:
        script = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True
        )
    late = threading.Timer(STARTING, script.kill)
    late.start()
    try:
        url = script.stdout.readline().strip()
        if not url:
            raise UserError(f"vLLM did not start; see {path}.")
        yield url
    finally:
        late.cancel()
        script.terminate()  # it ends the server
        script.wait(60)


def measure_orders(config) -> list[dict]:
    """Hit rate and time of the same questions in each order."""
    prompt = load_prompt(config.teacher.prompt)
    rows = []
    for name, ordered in ORDERS.items():
        # Another name for each order: what one has left in the cache helps no other.
        questions = ordered(questions_on_steps(config.data, f"Task {name}. "))
        texts = [score_text(prompt, request, ()) for request in questions]
        before = cached(config.teacher.url)
        started = time.perf_counter()
        asyncio.run(ask(config.teacher.url, texts))
        seconds = time.perf_counter() - started
        after = cached(config.teacher.url)
        seen, hit = (b - a for a, b in zip(before, after, strict=True))
        rows.append(
            {"priority": name, "questions": len(texts), "tokens": seen,
             "hit_rate": hit / seen, "seconds": seconds}
        )  # fmt: skip
    return rows


def questions_on_steps(data: str, opening: str) -> list[ScoreRequest]:
    """One on each step of some solutions of three lines or more; those of a problem
    differ early or late."""
    rows = load_problems(data, "train")
    problems = [row for row in rows if row.solution.count("\n") >= 2][:PROBLEMS]
    requests = []
    for p, problem in enumerate(problems):
        steps = problem.solution.splitlines(keepends=True)
        for solution in range(SOLUTIONS):
            rng = random.Random(f"{p}-{solution}")
            changed = rng.randrange(len(steps))
            previous = ""
            for index, step in enumerate(steps):
                step = (
                    re.sub(r"\d", "7", step) if index == changed and solution else step
                )
                requests.append(
                    ScoreRequest(
                        opening + problem.question, previous, step, whole=False
                    )
                )
                previous += step
    return requests


def by_step(requests: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """First steps first, as one would ask who waits for each step's verdict."""
    return sorted(requests, key=lambda request: request.previous.count("\n"))


def shuffled(requests: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """As questions of many workers come in."""
    return random.Random(0).sample(list(requests), len(requests))


def by_text(requests: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """The order of OpenAITeacher."""
    return sorted(requests, key=lambda r: (r.question, r.previous, r.text))


ORDERS = {"ours": by_text, "rollout": list, "by step": by_step, "shuffled": shuffled}


async def ask(url: str, texts: Sequence[str]) -> None:
    """One token for each, in order, AT_ONCE at a time."""
    client = openai.AsyncOpenAI(base_url=url, api_key="none", timeout=300)
    (model, *_) = [card.id for card in (await client.models.list()).data]
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(text):
        async with turns:
            message = {"role": "user", "content": text}
            await client.chat.completions.create(
                model=model, messages=[message], max_tokens=1, logprobs=True,
                top_logprobs=20,
            )  # fmt: skip

    await asyncio.gather(*map(one, texts))
    await client.close()


def cached(url: str) -> tuple[float, float]:
    """(tokens looked up, tokens found) in the prefix cache so far."""
    with urllib.request.urlopen(
        url.removesuffix("/v1") + "/metrics", timeout=30
    ) as page:
        text = page.read().decode()

    def total(name):
        found = re.findall(
            rf"^vllm:{name}(?:_total)?\{{.*\}} (\S+)$", text, re.MULTILINE
        )
        return sum(map(float, found))

    return total("prefix_cache_queries"), total("prefix_cache_hits")


def measure_overlap(config) -> list[dict]:
    """The same batch collected in both ways; programs are compiled before."""
    folder = find_model(config.model, "student")
    tokenizer = load_tokenizer(folder)
    task = make_task(config, tokenizer)
    teacher = make_teacher(config)
    sampler = student_sampler(config, folder, tokenizer, task)
    model = load_model(folder, config)
    collector = Collector(
        task=task, teacher=teacher, tokenizer=tokenizer, rules=rules(config)
    )
    problems = task.problems(0, config.problems_per_step)
    rows, groups = [], []
    # Twice before: the second has vLLM cache what both of those that count will ask.
    for name in ("compiling", "caching", "after", "during"):
        watch = monitor.Stopwatch()
        generate = watch.timed("sample", functools.partial(sampler, model))
        stream = watch.timed_items("sample", functools.partial(sampler.stream, model))
        teacher.metrics()
        with watch.time("collect"):
            found = collector.collect(
                problems, generate, seed=1 if name == "compiling" else 2,
                stream=stream if name == "during" else None,
            )  # fmt: skip
        groups.append(found)
        row = watch.take() | teacher.metrics()
        row["seconds_parts"] = row["seconds_sample"] + row["seconds_teacher"]
        rows.append({"scoring": name} | row)
    teacher.close()
    after, during = ([r for g in found for r in g.rollouts] for found in groups[2:])
    for row in rows[2:]:
        row["equal_students"] = share_equal(after, during, lambda r: r.student.tokens)
        row["equal_verdicts"] = share_equal(after, during, lambda r: r.accepted)
    return rows[2:]


def share_equal(some, others, what) -> float:
    """Of the rollouts in which `what` is the same in both. vLLM's numbers depend, in
    their last digits, on what it computes at the same time."""
    pairs = zip(map(what, some), map(what, others), strict=True)
    return statistics.fmean(a == b for a, b in pairs)


def measure_async(config) -> list[dict]:
    """Steps an hour of training in both modes, the first step apart: it compiles."""
    rows = []
    for batches in (0, 1):
        training = record.for_training(config)
        training.async_batches = batches
        training.run_dir = f"{config.run_dir}_{batches}"
        if Path(training.run_dir).exists():
            raise UserError(
                f"{training.run_dir} is there already; set another run_dir."
            )
        train.main(training)
        logged = read_metrics(training.run_dir)[1:-1]
        seconds = statistics.mean(
            r["seconds_collect"] + r["seconds_update"] for r in logged
        )
        row = {"async_batches": batches, "steps_an_hour": 3600 / seconds}
        rows.append(row | {x: statistics.mean(r[x] for r in logged) for x in LOGGED})
    return rows


PARTS = {"orders": measure_orders, "overlap": measure_overlap, "async": measure_async}
PARTS |= client.PARTS


def print_tables(result: dict) -> None:
    """One a measurement."""
    titles = {
        "orders": f"The same questions, {CACHE} tokens cached",
        "overlap": "Collecting one batch",
        "async": "Training",
        "throughput": "Requests at most 128 at once, each answered after 0.1 s",
        "stopped": "A batch when one of two servers hangs",
    }
    for name, title in titles.items():
        if not (rows := result.get(name)):
            continue
        kept = {"teacher_requests"} | {x for x in rows[0] if x[:8] != "teacher_"}
        columns = [x for x in rows[0] if x in kept]
        results_table(
            title,
            tuple(columns),
            [
                tuple(f"{x:.3g}" if isinstance(x, float) else str(x) for x in values)
                for values in ([row[column] for column in columns] for row in rows)
            ],
        )


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/teacher.py")

"""A program ends within seconds, though a server that it waits for is away."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import fakes
import pytest
from teacher_server import TeacherServer

from ovd_jax.search.base import Query
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.corpus import write_corpus
from ovd_jax.search.serve import entry
from ovd_jax.search.tags import INFORMATION
from ovd_jax.toy.world import world_named

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 5.0  # seconds
pytestmark = pytest.mark.multiprocess


def away() -> str:
    """A URL at which nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


SEARCHES = """
import threading, time
from ovd_jax.search.base import Query
from ovd_jax.search.engine import Search
from ovd_jax.search.http import Http
from ovd_jax.search.pool import SearchThreads
engine = Http({url!r}, topk=1, timeout_s=60.0, retries={retries})
pool = SearchThreads(Search(engine, on_failure="wait"))
pool.start([((n,), Query(str(n)), n) for n in range(100)])
time.sleep(0.5)
{then}
"""


@pytest.mark.parametrize("retries", [0, 20])
@pytest.mark.parametrize(
    ("then", "code"),
    [("raise RuntimeError('a fault')", 1), ("raise SystemExit(3)", 3), ("", 0)],
)
def test_searches_that_wait_keep_no_program_alive(then, code, retries):
    script = SEARCHES.format(url=f"{away()}/retrieve", retries=retries, then=then)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert time.monotonic() - begun < 10 * LIMIT  # its imports included


class Program:
    """A program that runs in a group of processes of its own, and what it said."""

    def __init__(self, name: str, folder: Path, *knobs):
        self.log = folder / f"{name}.said"
        with open(self.log, "wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, f"launch/{name}.py", *knobs], stderr=said,
                stdout=said, cwd=ROOT, start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_until(self, ready, seconds=240.0) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def idles(self) -> bool:
        """Whether it only waits: while it compiles, no signal reaches Python."""
        used = []
        for _ in range(2):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().split()
            used.append(int(fields[13]))  # in hundredths of a second
            time.sleep(0.5)
        return used[1] - used[0] < 5

    def seconds_to_end(self) -> float:
        begun = time.monotonic()
        self.process.wait(timeout=30)
        return time.monotonic() - begun

    def interrupted(self) -> float:
        """The seconds that it takes to end after Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.seconds_to_end()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path):
    """`start(name, *knobs)`: a Program in `tmp_path`, gone when the test ends."""
    with contextlib.ExitStack() as stack:

        def make(name, *knobs):
            program = Program(name, tmp_path, *knobs)
            stack.callback(program.close)
            return program

        yield make


SEARCHING = (  # a student that always searches, where nothing answers
    "--config=configs/quickstart_search.py", "--config.search.backend=http",
    "--config.search.retries=0", "--config.turns.max_observations=1",
)  # fmt: skip
TRAINING = (
    *SEARCHING, "--config.threshold=0", "--config.problems_per_step=2",
    "--config.samples=2", "--config.min_rows=4", "--config.eval_problems=0",
    "--config.loggers=()",
)  # fmt: skip
EVALUATION = (
    "--config.eval_problems=4",
    "--config.eval_cache=none",
    "--config.model=world",
)
WAITS = "waits for its search engine"


def searches(text, seed):
    return "<think> x </think>\n<search> who </search>"


def compared(config: Path, folder: Path, knobs) -> str:
    """A flag that names a config of one evaluation in `folder`, with these knobs."""
    base, *knobs = [knob.removeprefix("--config.") for knob in knobs]
    config.write_text(
        "from configs import compare\n\n\n"
        "def get_config():\n"
        "    config = compare.get_config()\n"
        f"    config.run_dir = {str(folder)!r}\n"
        "    config.runs = ('as it is: base= model=world',)\n"
        f"    config.eval_overrides = {tuple(knobs)}\n"
        "    config.tests, config.seeds = ('plain: seed=0',), (0,)\n"
        f"    config.eval_base = {base.removeprefix('--config=')!r}\n"
        "    return config\n"
    )
    return f"--config={config}"


def log_of(folder: Path) -> str:
    """Of an evaluation in a comparison."""
    return "".join(path.read_text("utf-8") for path in folder.rglob("eval-*.log"))


@contextlib.contextmanager
def engine_that_goes_away(folder: Path, after: int):
    """The URL of an engine that answers so many searches, and is away from then on."""
    corpus = write_corpus(world_named("world").documents(), folder)
    engine, searches = Bm25(corpus, topk=2, cache=folder), itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            here = next(searches) < after
            queries = [Query(text) for text in body["queries"]]
            found = engine.find(queries, [0] * len(queries))
            result = [[entry(document, True) for document in each] for each in found]
            said = json.dumps({"result": result} if here else {}).encode()
            self.send_response(200 if here else 503)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    with fakes.served(Handler) as url:
        yield f"{url}/retrieve"


def corpus(folder: Path) -> Path:
    rows = [{"id": n, "title": f"t{n}", "text": f"word {n}"} for n in range(50)]
    return fakes.write_rows(folder / "corpus.jsonl", rows)


def takes_connections(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_what_loads_no_model_ends_within_seconds_of_ctrl_c(start, tmp_path):
    port = int(away().rpartition(":")[2])
    serve = start(
        "serve_search", f"--config.corpus={corpus(tmp_path)}",
        f"--config.index_dir={tmp_path}/served", f"--config.port={port}",
    )  # fmt: skip
    serve.wait_until(lambda: takes_connections(port))
    request = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)  # and never the rest
        time.sleep(0.3)
        assert serve.interrupted() < LIMIT, serve.said()
    index = tmp_path / "index"
    make = start(
        "make_simulator_data", f"--config.corpus={corpus(tmp_path)}",
        f"--config.index_dir={index}", f"--config.output={tmp_path}/rows.jsonl",
        "--config.trajectories=", "--config.corpus_queries=100000000",
    )  # fmt: skip
    make.wait_until(lambda: any(index.glob("[!m]*")))
    assert make.interrupted() < LIMIT, make.said()
    assert make.process.returncode == 130, make.said()
    for program in (serve, make):
        assert "Traceback" not in program.said()


def test_what_waits_for_its_engine_ends_within_seconds_of_ctrl_c(start, tmp_path):
    """All of them at once: what takes its time is to begin."""
    engine = f"--config.search.url={away()}/retrieve"
    with TeacherServer(write=searches, strict=True) as student:
        asked = [*SEARCHING, *EVALUATION, engine, f"--config.engine={student.url}"]
        train = start("train", *TRAINING, engine, f"--config.run_dir={tmp_path}/t")
        evaluate = start("evaluate", *asked, f"--config.run_dir={tmp_path}/e")
        compare = start("compare", compared(tmp_path / "c.py", tmp_path / "c", asked))
        compare.wait_until(lambda: WAITS in log_of(tmp_path / "c"))
        for program in (train, evaluate):
            program.wait_until(lambda program=program: WAITS in program.said())
            program.wait_until(program.idles)
        for program in (train, evaluate, compare):
            assert program.interrupted() < LIMIT, program.said()
    for program in (train, evaluate, compare):
        assert program.process.returncode == 130, program.said()
        assert "Traceback" not in program.said()
        assert program.said().splitlines()[-1].startswith("interrupted by SIGINT")


def test_an_audit_and_a_fine_tuning_end_within_seconds_of_ctrl_c(start, tmp_path):
    audit = start(
        "evaluate", "--config=configs/teacher_audit.py", "--config.teacher.retries=0",
        f"--config.teacher.url={away()}/v1", f"--config.run_dir={tmp_path}/a",
    )  # fmt: skip
    tune = start(
        "sft", "--config=configs/quickstart_student.py", "--config.batch_size=4",
        "--config.log_every=1", f"--config.run_dir={tmp_path}/s",
    )  # fmt: skip
    audit.wait_until(lambda: "waits for its teacher" in audit.said())
    tune.wait_until(lambda: tune.said().count("loss") > 1)
    for program in (audit, tune):
        assert program.interrupted() < LIMIT, program.said()
        assert program.process.returncode == 130, program.said()
        assert "Traceback" not in program.said()


def test_evaluations_that_fail_leave_the_searches_of_other_problems(start, tmp_path):
    """Some rows search, and the server refuses the others by key."""
    refused = threading.Event()

    def refuses(body):
        if body["max_tokens"] > 1 and next(asked) > 1:
            refused.wait(60)
            return 401, {"error": {"message": "the key has expired"}}
        return None

    engine, asked = f"--config.search.url={away()}/retrieve", itertools.count()
    with TeacherServer(write=searches, strict=True, refuses=refuses) as student:
        knobs = [*SEARCHING, *EVALUATION, engine, f"--config.engine={student.url}"]
        evaluate = start("evaluate", *knobs, f"--config.run_dir={tmp_path}/e")
        evaluate.wait_until(lambda: WAITS in evaluate.said())
        refused.set()
        assert evaluate.seconds_to_end() < LIMIT, evaluate.said()
        assert evaluate.process.returncode == 1
        assert evaluate.said().splitlines()[-1].startswith("error: ")
        assert "the key has expired" in evaluate.said()
        compare = start("compare", compared(tmp_path / "c.py", tmp_path / "c", knobs))
        compare.wait_until(lambda: "the key has expired" in compare.said())
        assert compare.seconds_to_end() < LIMIT, compare.said()
        assert compare.process.returncode == 1


@pytest.mark.slow
def test_training_ends_when_its_teacher_does_though_its_engine_is_away(start, tmp_path):
    """Some rows have answered and are judged, while others wait for their search."""
    away = threading.Event()

    def refuses(body):
        if f"{INFORMATION}>" in json.dumps(body):  # what a second turn comes after
            away.wait(60)
            return 401, {"error": {"message": "the key has expired"}}
        return None

    rows = 16
    engine = engine_that_goes_away(tmp_path / "world", after=rows)
    with TeacherServer(refuses=refuses) as teacher, engine as url:
        train = start(
            "train", "--config=configs/quickstart_search.py",
            "--config.search.backend=http", f"--config.search.url={url}",
            "--config.search.retries=0", "--config.turns.max_observations=3",
            f"--config.teacher.url={teacher.url}", "--config.problems_per_step=4",
            f"--config.samples={rows // 4}", f"--config.min_rows={rows}",
            "--config.eval_problems=0", "--config.loggers=()",
            f"--config.run_dir={tmp_path}/t",
        )  # fmt: skip
        train.wait_until(lambda: WAITS in train.said())
        train.wait_until(train.idles)
        away.set()
        assert train.seconds_to_end() < LIMIT, train.said()
    assert train.process.returncode == 1, train.said()
    assert train.said().splitlines()[-1].startswith("error: ")
    assert "the key has expired" in train.said()

"""Signals and disks that fail end a program in one line, and a run keeps its steps."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovd_jax.cli import flags
from ovd_jax.cli.environment import REMEDIES, said_of
from ovd_jax.reporting.run_dir import RunDir, read_metrics

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
PROGRAM = """
import ctypes, sys, threading, time
from ovd_jax.cli import flags, interrupt
from ovd_jax.cli.interrupt import SIGNALS, Interrupted

def ready():
    print("ready", flush=True)

def sleeps():
    ready()
    time.sleep(60)

def waits_for_a_thread():
    ready()
    threading.Event().wait(60)

def holds():
    with SIGNALS.held():
        ready()
        time.sleep(1.0)
        print("whole", flush=True)
    time.sleep(60)

def is_held_in_c():
    # A lock that no signal interrupts, as a compilation does not: taken twice.
    interrupt.GRACE_S = 1.0
    mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    c.pthread_mutex_lock(mutex)
    threading.Timer(0.5, ready).start()
    c.pthread_mutex_lock(mutex)

def swallows():
    interrupt.GRACE_S = 1.0
    threading.Timer(0.5, ready).start()  # once the main thread is in its loop
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def cleans_up_for_ever():
    try:
        sleeps()
    finally:
        SIGNALS.noticed.set()
        print("cleaning", flush=True)
        time.sleep(60)

def leaves_a_thread():
    flags._LAST_S = 1.0
    threading.Thread(target=time.sleep, args=[60]).start()
    sleeps()

def ends_well():
    ready()
    time.sleep(1.0)

flags.run(
    lambda config: globals()[sys.argv[1]](), doc="", default="configs/export.py",
    argv=["p"],
)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a part of PROGRAM, and returns it when it is ready."""
    started = []

    def start(part: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, part], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("sleeps", "The same command starts again."),
        ("waits_for_a_thread", "The same command starts again."),
        ("holds", "The same command starts again."),
        ("is_held_in_c", "Ended in the middle of something long: the same command"),
        ("swallows", "Ended in the middle of something long: the same command"),
        ("leaves_a_thread", "The same command starts again."),
    ],
)
def test_a_signal_ends_a_program_in_one_line(start, part, said, number):
    process, began = start(part), time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == SIGNALS[number]
    assert err.count("\n") == 1, err
    name = signal.Signals(number).name
    assert err.startswith(f"interrupted by {name}. {said}")
    assert out == ("whole\n" if part == "holds" else "")


def test_a_second_signal_ends_it_at_once(start):
    process = start("cleans_up_for_ever")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "without waiting" in err
    assert err.count("\n") == 1


def test_without_a_signal_nothing_is_different(start):
    process = start("ends_well")
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def test_handlers_are_put_back_where_a_program_ends_well():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    flags.run(lambda config: None, doc="", default="configs/export.py", argv=["p"])
    assert (
        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ) == before  # fmt: skip


def ended(capsys, error: BaseException) -> str:
    """The one line of a program that fails with `error`."""

    def main(config):
        raise error

    with pytest.raises(SystemExit) as exit_:
        flags.run(main, doc="", default="configs/export.py", argv=["p"])
    assert exit_.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("number", REMEDIES, ids=errno.errorcode.get)
def test_an_error_of_the_disk_is_one_line_with_a_remedy(capsys, number):
    said = ended(capsys, OSError(number, os.strerror(number), "runs/x/metrics.jsonl"))
    assert said.startswith(f"error: runs/x/metrics.jsonl: {os.strerror(number)}; ")
    assert REMEDIES[number] in said


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("RESOURCE: OCDBT write: [system:28] No space left on device 'd'"),
        ValueError("I/O error: Read-only file system (os error 30)\nat x.cc:1"),
        Exception("Disk quota exceeded"),
    ],
)
def test_other_librarys_errors_of_the_disk_are_known_by_their_words(capsys, error):
    assert any(f"; {remedy}." in ended(capsys, error) for remedy in REMEDIES.values())


def test_an_error_that_a_disk_caused_is_the_disks(capsys):
    error = RuntimeError("the checkpoint was not saved")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "free some space" in ended(capsys, error)


@pytest.mark.parametrize(
    "error", [ValueError("shapes"), OSError("odd"), ConnectionRefusedError(111, "no")]
)
def test_a_fault_of_the_program_shows_itself(error):
    assert said_of(error) == ""
    with pytest.raises(type(error)):
        flags.run(
            lambda config: (_ for _ in ()).throw(error), doc="",
            default="configs/export.py", argv=["p"],
        )  # fmt: skip


def test_a_full_disk_is_told_while_rows_are_written(tmp_path, capsys):
    run = RunDir(tmp_path, 0, loggers=())
    run._metrics.close()
    run._metrics = open("/dev/full", "w")  # noqa: SIM115 a disk of no size
    with pytest.raises(OSError, match="No space left") as error:
        run.log(0, {"loss": 1.0})
    assert "free some space" in ended(capsys, error.value)


QUICK = (
    "num_steps=40", "loggers=()", "eval_problems=8", "problems_per_step=8",
    "minibatches=2", "checkpoint_every=1000",
)  # fmt: skip


def train(folder, *knobs: str, program: str = "train", **environment: str):
    """A training that has been started."""
    arguments = [f"--config.{knob}" for knob in (f"run_dir={folder}", *knobs)]
    return subprocess.Popen(
        [sys.executable, f"launch/{program}.py", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip


def wait_for_steps(folder, process, steps: int) -> None:
    path, deadline = Path(folder) / "metrics.jsonl", time.monotonic() + 240
    while not path.exists() or path.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_training_saves_its_steps_and_goes_on(tmp_path, number):
    process = train(tmp_path, *QUICK)
    wait_for_steps(tmp_path, process, 3)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == SIGNALS[number]
    *_, last = err.splitlines()
    assert "Traceback" not in err
    rows = read_metrics(tmp_path)
    saved = [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")]
    assert saved == [str(len(rows) * 4)]  # minibatches by epochs
    assert f"{len(rows)} of 40 steps are done and saved; the same command" in last
    process = train(tmp_path, *QUICK, f"num_steps={len(rows) + 1}")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err  # num_steps may only grow
    assert "num_steps (there 40, here" in err
    process = train(tmp_path, *QUICK)
    wait_for_steps(tmp_path, process, len(rows) + 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert read_metrics(tmp_path)[: len(rows)] == rows
    steps = [row["step"] for row in read_metrics(tmp_path)]
    assert steps == list(range(len(steps)))


TEARDOWN = """
import atexit, signal, sys, time
from ovd_jax.cli import flags
from ovd_jax.errors import UserError

class Compiled:
    def __del__(self):
        time.sleep(30)

keeps = Compiled()  # until the interpreter takes its modules apart
keeps.itself = keeps

def main(config):
    atexit.register(print, "a library says goodbye")
    if how == "interrupted":
        signal.raise_signal(signal.SIGINT)
    raise UserError("wrong") if how == "wrong" else KeyError("a fault")

how = sys.argv.pop()
flags.run(main, doc="", default="configs/export.py")
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [("wrong", 1, "error: wrong"), ("interrupted", 130, "interrupted by SIGINT"),
     ("faulty", 1, "KeyError: 'a fault'")],
)  # fmt: skip
def test_a_program_that_fails_does_not_wait_to_be_taken_apart(how, code, said):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", TEARDOWN, how], cwd=ROOT, text=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    assert time.monotonic() - begun < 20
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == "a library says goodbye\n"


def test_the_end_of_jax_that_is_left_out_has_that_name():
    """Where it has another, each failing program takes seconds more to end."""
    import jax._src.api

    assert callable(jax._src.api.clean_up)


@pytest.mark.slow
def test_an_interrupted_fine_tuning_saves_its_steps(tmp_path):
    knobs = ("num_steps=100000", "checkpoint_every=100000", "log_every=1")
    process = train(tmp_path, *knobs, program="sft")
    wait_for_steps(tmp_path, process, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "of 100000 steps are done and saved; the same command" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "checkpoints").glob("[0-9]*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("knobs", "environment", "said"),
    [
        (("run_dir=FILE",), {}, "a file is where a folder must be"),
        (("run_dir=FILE/below",), {}, "a file is where a folder must be"),
        (("run_dir=/proc/run",), {}, "/proc/run: No such file or directory"),
        (("task=math", "data=no/such.jsonl"), {}, "no/such.jsonl"),
        ((), {"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS=cuda: JAX finds no such"),
        ((), {"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS=nonsense: JAX finds no"),
    ],
)
def test_a_surrounding_that_is_wrong_is_told_in_one_line(
    tmp_path, knobs, environment, said
):
    (tmp_path / "file").write_text("mine")
    knobs = [knob.replace("FILE", str(tmp_path / "file")) for knob in knobs]
    for program in ("train", "sft"):
        if program == "sft" and any("task" in knob for knob in knobs):
            continue
        process = train(tmp_path / "run", *knobs, program=program, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert (out, err.count("\n")) == ("", 1), err
        assert said in err
    assert (tmp_path / "file").read_text() == "mine"

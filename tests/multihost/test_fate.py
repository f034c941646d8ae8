"""Two processes end together, with the same line, whatever ends one of them."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, signal, sys, threading, time
import jax
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.multihost.processes import broadcast, broadcast_result, is_main, on_main
from ovd_jax.wiring.mesh import on_mesh

class Odd(UserError):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()  # which no pickle takes

def odd():
    raise Odd("one", "two")

def no_disk():
    raise OSError(30, "Read-only file system", "runs/x/metrics.jsonl")

def no_package():
    raise UserError("Logger 'wandb' needs the package wandb")

def fault():
    raise TypeError("shapes")

def interrupted():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

@on_mesh
def main(config):
    what, where = sys.argv[1], int(sys.argv[3])
    if what == "nothing":
        return print("well", flush=True)
    if what == "both":
        raise UserError("the same in both")
    if what == "told":
        broadcast_result(odd)
    if what == "second":
        if not is_main():
            no_package()
    else:
        on_main(globals()[what])
    broadcast(b"x")  # where the other one would wait for ever
    time.sleep(60)

port, number = sys.argv[2:]
knobs = (f"coordinator=127.0.0.1:{port}", "processes=2", f"process={number}")
argv = ["p", *(f"--config.distributed.{knob}" for knob in knobs)]
flags.run(main, doc="", default="configs/default.py", argv=argv)
"""


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


def ends(what: str) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of both processes."""
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, what, port, number], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in "01"
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=150) for process in both]
    finally:
        for process in both:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(both, said, strict=True)]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("what", "line", "code"),
    [
        ("no_disk", "error: runs/x/metrics.jsonl: Read-only file system; name", 1),
        ("no_package", "error: Logger 'wandb' needs the package wandb (OVD_", 1),
        ("odd", "error: one and two (OVD_TRACEBACK=1 shows where)", 1),
        ("second", "error: Logger 'wandb' needs the package wandb (OVD_", 1),
        ("both", "error: the same in both (OVD_TRACEBACK=1 shows where)", 1),
        ("fault", "error: process 0 failed: TypeError: shapes", 1),
        ("interrupted", "interrupted by SIGTERM. ", 143),
    ],
)
def test_what_ends_one_process_ends_both_with_one_line(what, line, code):
    started = time.monotonic()
    first, second = ends(what)
    assert time.monotonic() - started < 120
    assert (first[0], second[0]) == (code, code), (first, second)
    last = [err.splitlines()[-1] for _, _, err in (first, second)]
    assert last[0] == last[1]
    assert last[0].startswith(line)
    assert "Traceback" not in second[2]
    assert ("Traceback" in first[2]) == (what == "fault")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_that_end_well_say_nothing():
    for code, out, err in ends("nothing"):
        assert (code, out.splitlines()[-1]) == (0, "well"), err  # Gloo has a line too
        assert "error" not in err

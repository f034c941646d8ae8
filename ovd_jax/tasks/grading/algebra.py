"""math-verify in a worker process of its own: nothing inside a process can stop sympy
once it has begun to work out `9^{9^{9^9}}`."""

import contextlib
import json
import logging
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from ovd_jax.tasks.grading.equality import TOLERANCE, TRAILING_UNIT

EXACT = 1e-9  # how far equal numbers may be apart once they are worked out
MEMORY_BYTES = 4 << 30  # that one item may take on top of what the worker starts with
STARTUP_S = 120.0  # importing sympy takes 1 s, far more on a busy machine
# math-verify cannot read "a + c" (a unit?) or "2 i", and takes "1,100" for 1100.
MISREAD_SPACE = re.compile(r"(?<![A-Za-z\d,]) | (?![A-Za-z\d])|(?<=\d) (?=[ei]\b)")
SHARE = re.compile(r"(?<![\w.^/)}])(\d+)/(\d+) (?=[A-Za-z\\])")  # 2/3 x
EULER = re.compile(r"\bE(?=\s?_)")  # with an index it is a name, not a number
NAME = re.compile(r"(?<![\\A-Za-z])(?![ei])[A-Za-z](?![A-Za-z])")
ARC = re.compile(r"(?<![\\a-z])(?=arc(?:sin|cos|tan)|ln|log)")
OUTCOMES = {b"1": "same_algebra", b"0": "other_algebra", b"?": "unreadable"}


class Worker:
    """One worker process, started when it is first asked; a new one takes its place
    after it hung or died. It ends with this object or with the program."""

    def __init__(self, timeout_s: float, tolerance: float = float(TOLERANCE)):
        self.process: subprocess.Popen | None = None
        self._timeout_s = timeout_s
        self._tolerance = tolerance

    def ask(self, answer: str, gold: str) -> str:
        """Compares two formulas; returns an outcome of `compare`."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        outcome = "crashed"
        with contextlib.suppress(EOFError, OSError):
            self._connection.send_bytes(json.dumps([answer, gold]).encode())
            if self._connection.poll(self._timeout_s):
                return OUTCOMES[self._connection.recv_bytes()]
            outcome = "timeout"
        self._stop()
        return outcome

    def close(self) -> None:
        """Stops the process; asking again starts another."""
        if self.process is not None:
            self._stop()

    def _start(self) -> None:
        # A new interpreter, since `multiprocessing` forks a parent full of jax threads
        # or imports its main module, and jax with it, once more.
        self._connection, remote = multiprocessing.Pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        settings = (remote.fileno(), self._timeout_s, self._tolerance)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, *map(str, settings)],
            pass_fds=[remote.fileno()],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        remote.close()
        # Called by us, when the worker is collected, or at the program's exit.
        self._stop = weakref.finalize(self, _kill, self.process, self._connection)
        with contextlib.suppress(EOFError, OSError):
            if self._connection.poll(STARTUP_S) and self._connection.recv_bytes():
                return
        self._stop()
        raise RuntimeError(
            "The grading worker did not start; its own error is printed above. Try "
            "pip install 'math-verify>=0.9', then `import math_verify`."
        )


def _kill(process: subprocess.Popen, connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()


SERVE = f"from {__name__} import serve; import sys; serve(*sys.argv[1:])"


def serve(fd: str, timeout_s: str, tolerance: str) -> None:
    """What the worker runs: judges (answer, gold) messages while the parent lives."""
    logging.disable()
    judge("1", "1", 0.0)  # imports sympy, so that no item pays for it
    _limit_memory()
    connection = Connection(int(fd))
    connection.send_bytes(b"ready")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    while True:
        try:
            answer, gold = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # Unhandled, so it kills: a busy worker must not outlive a parent that was.
        signal.setitimer(signal.ITIMER_REAL, float(timeout_s) + 1)
        try:
            outcome = judge(answer, gold, float(tolerance))
        except Exception:  # whatever sympy trips over is no right answer
            outcome = b"?"
        connection.send_bytes(outcome)
        signal.setitimer(signal.ITIMER_REAL, 0)


def judge(answer: str, gold: str, tolerance: float) -> bytes:
    """The code of an outcome. Decimals may differ from a gold that is no integer by
    `tolerance`, as a share of it."""
    from math_verify import LatexExtractionConfig, parse, verify

    # Its fallbacks take any number in the text, or its first words, for the whole.
    texts = [readable(text) for text in (answer, gold)]
    answers, golds = (
        parse(
            rf"\boxed{{{text}}}",
            [LatexExtractionConfig(boxed_match_priority=0)],
            fallback_mode="no_fallback",
            parsing_timeout=None,  # type: ignore[arg-type]  # it stands for no alarm
        )
        for text in texts
    )
    if not (answers and golds) or lost_names(texts, (answers[0], golds[0])):
        return b"?"
    same = same_value(answers[0], golds[0], tolerance)
    if same is None:
        same = same_equation(answers[0], golds[0])
    if same is None:
        options = {"allow_set_relation_comp": True, "timeout_seconds": None}
        same = verify(golds, answers, **options)
    return b"1" if same else b"0"


def readable(text: str) -> str:
    """A cleaned formula in the form that math-verify reads best."""
    text = SHARE.sub(r"\\frac{\1}{\2}", TRAILING_UNIT.sub("", text))
    text = MISREAD_SPACE.sub("", text)
    text = EULER.sub(lambda _: r"\varepsilon ", text)
    return ARC.sub(r"\\", text)


def lost_names(texts: Sequence[str], parsed: Sequence[Any]) -> bool:
    """True if a formula with names was read as a bare number, a piece of it."""
    return any(
        getattr(found, "is_Number", False) and NAME.search(text)
        for text, found in zip(texts, parsed, strict=True)
    )


def same_value(answer: Any, gold: Any, tolerance: float) -> bool | None:
    """Whether two numbers are equal, to more places than verify's 6 decimals, in which
    2^-98 is 0, or None where only it can tell."""
    from sympy import Float

    if not (getattr(answer, "is_number", False) and getattr(gold, "is_number", False)):
        return None
    difference = (answer - gold).doit()
    decimals = answer.has(Float) or gold.has(Float)
    if difference.is_Rational and not decimals:
        return difference == 0
    exact = not decimals or gold.doit().is_integer
    size, apart = abs(gold.n()), abs(difference.n())
    if apart > (EXACT if exact else tolerance) * size:
        return False
    return None if exact else True


def same_equation(answer: Any, gold: Any) -> bool | None:
    """Whether two equations between polynomials, or their quotients, are a multiple of
    one another; None for anything else."""
    from sympy import Eq, solve, together

    if not (isinstance(answer, Eq) and isinstance(gold, Eq)):
        return None
    left, right = (cast(Any, eq.lhs) - eq.rhs for eq in (answer, gold))
    sides: list[Any] = [together(side.doit()) for side in (left, right)]
    tops = [side.as_numer_denom()[0].expand() for side in sides]
    if not all(top.free_symbols for top in tops):  # 0 = 1, or what is always true
        return tops[0] == tops[1]
    if (tops[0] / tops[1]).simplify().is_number:
        return True
    # verify compares solutions, of which two equations may both have none.
    is_plain = all(top.is_polynomial() for top in tops)
    return False if is_plain or not solve(gold, gold.free_symbols) else None


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):  # /proc is Linux only
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

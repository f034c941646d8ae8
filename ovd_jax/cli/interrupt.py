"""Ctrl-C and SIGTERM: a program ends in one line, and a run keeps what it has done.

A signal drops what the main thread is at, unless that is an update: this is finished
first, since half of one is of no use. A thread of its own ends the program where the
main one does not come to it, because it compiles, say.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

GRACE_S = 8.0  # until the main thread must have noticed
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number  # which the program ends with, as shells have it
        self.name = signal.Signals(number).name
        self.advice = "The same command starts again."

    def __str__(self) -> str:
        return f"interrupted by {self.name}. {self.advice}"


class Signals:
    """The signals received so far."""

    def __init__(self):
        self.number = 0  # of the first signal
        self.noticed = threading.Event()  # the main thread is on its way out
        self._held = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Delays a signal to the end of the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.number and not self.noticed.is_set():
            raise Interrupted(self.number)

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Raises Interrupted in the block, which the main thread runs, when a signal
        comes. A second signal ends the program at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main one may be told of signals
            return
        self.number, self.noticed = 0, threading.Event()
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        handlers = {each: signal.signal(each, self._raise) for each in _SIGNALS}
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=[reader], daemon=True).start()
        try:
            yield
        except Interrupted:
            # The handlers stay: what is left of the program is to end as quietly.
            self.noticed.set()
            raise
        except BaseException:
            self._restore(handlers, before, writer)
            raise
        self._restore(handlers, before, writer)

    def _restore(self, handlers, wakeup: int, writer: socket.socket) -> None:
        self.noticed.set()
        signal.set_wakeup_fd(wakeup)
        for each, handler in handlers.items():
            signal.signal(each, handler)
        writer.close()

    def _raise(self, number: int, _frame) -> None:
        self.number = self.number or number
        if not self._held and not self.noticed.is_set():
            raise Interrupted(number)

    def _watch(self, reader: socket.socket) -> None:
        """Ends the program if the main thread does not, or at a second signal."""
        with reader:
            numbers = self._numbers(reader)
            if not (number := next(numbers, 0)):
                return
            deadline = threading.Thread(target=self._wait, args=[number], daemon=True)
            deadline.start()
            if next(numbers, 0):
                end(number, "asked again, without waiting")

    def _numbers(self, reader: socket.socket) -> Iterator[int]:
        while received := reader.recv(1):
            # A server has handlers of its own as long as it serves.
            own = received[0] in _SIGNALS and signal.getsignal(received[0])
            if own == self._raise:
                yield received[0]

    def _wait(self, number: int) -> None:
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            if self._held:
                deadline = time.monotonic() + GRACE_S
            if self.noticed.wait(0.1):
                return
        end(number, "in the middle of something long")


SIGNALS = Signals()  # as signals do, these belong to the whole process


def end(number: int, how: str) -> None:
    """Ends the program immediately, from any thread."""
    stop = Interrupted(number)
    stop.advice = f"Ended {how}: the same command goes on from what is saved."
    print(stop, file=sys.stderr, flush=True)
    os._exit(stop.code)


def end_after(seconds: float, code: int) -> None:
    """Ends the program with `code` once `seconds` have gone by, if threads of others
    still keep it then."""

    def wait():
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=wait, daemon=True).start()


class QuickEnd:
    """A program that, once `begin` was called, ends when what libraries do at its end
    is done: to take the compiled programs of JAX apart takes seconds more.

    To be made before libraries are imported: what was first comes last.
    """

    def __init__(self):
        self._code: int | None = None
        atexit.register(self._end)

    def begin(self, code: int) -> None:
        """The program, which is about to end, is to do so with `code`."""
        self._code = code
        # No public name; where it has gone the end takes longer, and no more.
        clean_up = getattr(sys.modules.get("jax._src.api"), "clean_up", None)
        if clean_up is not None:
            atexit.unregister(clean_up)

    def _end(self) -> None:
        if self._code is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self._code)

r"""Judging an answer against the gold answer.

Answers are hostile: they are whatever a model sampled. Most are settled here by
comparing strings and numbers; the rest go to math-verify in a worker process, because
nothing inside a process can stop sympy once it has begun to work out `9^{9^{9^9}}`.
"""

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

MAX_CHARS = 1000  # of an answer or a gold; none of the 99% shortest golds comes near
MEMORY_BYTES = 4 << 30  # that one item may take on top of what the worker starts with
STARTUP_S = 120.0  # importing sympy takes 1 s, far more on a busy machine
RELATIVE_TOLERANCE = Fraction(1, 10**6)  # for golds that are not integers

LATEX_NOISE = re.compile(
    r"\\\\|\\[()\[\]!,$]|\\[;: ]|~|[$£€]|\{,\}|\\q?quad(?![A-Za-z])"
    r"|\\(?:left|right|displaystyle|[dt]frac)(?![A-Za-z])"
)
KEPT_NOISE = {r"\\": r"\\", "{,}": ",", r"\dfrac": r"\frac", r"\tfrac": r"\frac"}
KEPT_NOISE |= dict.fromkeys((r"\;", r"\:", r"\ ", "~", r"\quad", r"\qquad"), " ")
TEXT_COMMAND = r"\\(?:text|textbf|textrm|mbox|mathrm|mathbf|operatorname)\s?"
TEXT = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}")
DEGREES = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|°")
LOOSE_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # "1 1/2" is not "11/2"
# math-verify cannot read "a + c" (a unit?) or "2 i", and takes "1,100" for 1100.
MISREAD_SPACE = re.compile(r"(?<![A-Za-z\d,]) | (?![A-Za-z\d])|(?<=\d) (?=[ei]\b)")
ASSIGNED = re.compile(r"^[a-z]{1,3}(?:\([a-z]\))?\s?=\s?(?=[^=]*$)", re.IGNORECASE)
FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|pi|mod|inf|ln)\b")
NO_BRACES = str.maketrans("", "", "{}")
CAPITALS = frozenset("ABCDEFGH")
WORDS = re.compile(r"(?=no$|.*[a-z]{3})[a-z' .,&-]+")
PROSE = re.compile(
    r"(?<![a-z\\])(?!arc|sqrt|sinh|cosh|tanh)(?:[a-z]{4,}|all|any|for|if)\b"
)
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]*matrix\}|\\[A-Za-z]+")
CONSTANT = re.compile(TEXT_COMMAND + r"\{\s?([ei])\s?\}")
UNIT_TEXT = TEXT_COMMAND + r"\{(?:[^{}\d]|\^\d)*\}"
TRAILING_UNIT = re.compile(rf"(?<=.){UNIT_TEXT}(?:\^\{{?-?\d\}}?)?$")
BASED = re.compile(r"-?\w+_\{?\d+\}?")
LETTERS = re.compile(r"\(?([A-H](?:[\s,;、]*(?:and\s*)?[A-H])*)\)?")
LABELLED = re.compile(r"\(?([A-Z])(?:\)[.:]?|[.:、])\s*\S")


def _clean(text: str) -> str:
    """Drops delimiters, currency and spacing commands: the same answer to a reader."""
    text = LATEX_NOISE.sub(lambda noise: KEPT_NOISE.get(noise[0], ""), text)
    text = CONSTANT.sub(r" \1", text)  # math-verify takes them for units
    return " ".join(text.split()).strip("* ").rstrip(". ")


def _key(cleaned: str) -> str:
    """What is left of an answer when style is taken away; equal keys, equal answers."""
    key = DEGREES.sub("", TEXT.sub(r"\1", cleaned)).replace(r"\%", "%")
    key = re.sub(r"(?<=[A-Za-z])\.", "", " ".join(key.split()))
    return LOOSE_SPACE.sub("", key).casefold()


def choice_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that an answer names by letter, by text or by both."""
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    keys = dict(zip((_key(_clean(choice)) for choice in choices), letters, strict=True))
    cleaned = TEXT.sub(r"\1", _clean(answer[:MAX_CHARS])).strip()
    labelled = LABELLED.match(cleaned)
    named = (cleaned.strip("()"), keys.get(_key(cleaned)), labelled and labelled[1])
    return next((letter for letter in named if letter in letters), None)


UNIT = (
    rf"\s?{UNIT_TEXT}|st|nd|rd|th"
    rf"|\s(?!{FUNCTION.pattern}|(?:and|plus|minus|hundred|thousand|\w*illion|dozen)\b)"
    r"(?:[a-z]{3,}|[ckm]m|[km]g|ml|ft|in|hr|mi|lb|oz)\b(?:\s[a-z./]+)*"
)
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+"
NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s?(?:(?P<whole>\d+)\s)?(?P<top>(?:{DIGITS})(?:e[-+]?\d{{1,3}})?)"
    rf"(?:/(?P<bottom>{DIGITS}))?(?P<percent>\s?(?:\\?%|percent))?"
    rf"(?:(?:{UNIT})(?:\^\{{?-?\d\}}?)?)?"
)
FRACTION = re.compile(r"\\frac\s?(?:\{(-?\d+)\}|(\d))\s?(?:\{(\d[\d,]*)\}|(\d))")
POWER_OF_TEN = re.compile(
    r"\s?(?:\\times|\\cdot|\*|\u00d7)\s?10\s?\^\s?(?:\{\s?([-+]?\d{1,3})\s?\}|(\d))"
)


def _number(cleaned: str) -> tuple[Fraction, bool, bool] | None:
    """A plain number's value, whether it is a percentage, and whether an integer."""
    text = FRACTION.sub(r" \1\2/\3\4", DEGREES.sub("", cleaned).lower())
    match = NUMBER.fullmatch(POWER_OF_TEN.sub(r"e\1\2", text).strip())
    if not match or (match["whole"] and not match["bottom"]):
        return None
    top = match["top"].replace(",", "")
    bottom = Fraction((match["bottom"] or "1").replace(",", ""))
    if not bottom:
        return None
    value = Fraction(match["whole"] or 0) + Fraction(top) / bottom
    signed = -value if match["sign"] == "-" else value
    return signed, bool(match["percent"]), top.isdigit() and not match["bottom"]


def _same_number(answer: tuple, gold: tuple) -> bool:
    value, percent, _ = answer
    gold_value, gold_percent, integer = gold
    scale = Fraction(100) ** (gold_percent - percent)  # 50% may be written 50 or 0.5
    tolerance = 0 if integer else abs(gold_value) * RELATIVE_TOLERANCE
    return any(abs(v - gold_value) <= tolerance for v in (value, value * scale))


def _compare(answer: str, gold: str) -> bool | None:
    """Judges two cleaned answers without algebra; None where only algebra can tell."""
    names = [match[0] for text in (answer, gold) if (match := ASSIGNED.match(text))]
    if len({_key(name) for name in names}) < 2:  # not `x = 5` beside `y = 5`
        answer, gold = ASSIGNED.sub("", answer), ASSIGNED.sub("", gold)
    if _key(answer) == _key(gold):
        return True
    if (number := _number(answer)) and (gold_number := _number(gold)):
        return _same_number(number, gold_number)
    answer_text, gold_text = (TEXT.sub(r"\1", text).strip() for text in (answer, gold))
    letters = LETTERS.fullmatch(gold_text)
    named = LETTERS.fullmatch(answer_text) or LABELLED.match(answer_text)
    if letters and named:
        return CAPITALS & set(named[1]) == CAPITALS & set(letters[1])
    if BASED.fullmatch(answer) and BASED.fullmatch(gold):
        return answer.translate(NO_BRACES) == gold.translate(NO_BRACES)
    return False if _is_prose(gold) else None


def _is_prose(gold: str) -> bool:
    """Whether a gold has words that matter: math-verify skips or multiplies them."""
    words = TEXT.sub(r"\1", gold).strip().lower()
    if WORDS.fullmatch(words):
        return not FUNCTION.search(words)
    terms = TEXT.sub(r" \1 ", TRAILING_UNIT.sub("", gold))
    return bool(PROSE.search(ENVIRONMENT.sub(" ", terms).lower()))


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether an answer equals the gold answer, and a code that says why."""

    equal: bool
    reason: str


class Grader:
    """Judges answers; owns the worker process, which ends with it or with the program.

    An item that takes the worker longer than `timeout_s`, or kills it, scores 0.0, and
    the next one gets a new worker.
    """

    def __init__(self, timeout_s: float = 2.0):
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Stops the worker; grading again starts another."""
        with self._lock:
            if self._process is not None:
                self._stop()

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """1.0 for each (answer, gold) pair whose two sides are equal, else 0.0."""
        return [float(judgement.equal) for judgement in self.judge(pairs)]

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Whether the two sides of each (answer, gold) pair are equal, and why."""
        with self._lock:
            verdicts = {pair: self._equal(*pair) for pair in dict.fromkeys(pairs)}
        return [
            Judgement(verdicts[pair], "equal" if verdicts[pair] else "different")
            for pair in pairs
        ]

    def _equal(self, answer: str, gold: str) -> bool:
        if not answer.strip() or answer.strip() == gold.strip():
            return bool(answer.strip())
        if max(len(answer), len(gold)) > MAX_CHARS:
            return False
        answer, gold = _clean(answer), _clean(gold)
        verdict = _compare(answer, gold) if answer and gold else False
        return self._ask(answer, gold) if verdict is None else verdict

    def _ask(self, answer: str, gold: str) -> bool:
        if self._process is None or self._process.poll() is not None:
            self._start()
        with contextlib.suppress(EOFError, OSError):
            self._connection.send_bytes(json.dumps([answer, gold]).encode())
            if self._connection.poll(self._timeout_s):
                return self._connection.recv_bytes() == b"1"
        self._stop()
        return False

    def _start(self) -> None:
        # A new interpreter, since `multiprocessing` forks a parent full of jax threads
        # or imports its main module, and jax with it, once more.
        self._connection, remote = multiprocessing.Pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        arguments = [str(remote.fileno()), str(self._timeout_s)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, *arguments],
            pass_fds=[remote.fileno()],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        remote.close()
        # Called by us, when the grader is collected, or at the program's exit.
        self._stop = weakref.finalize(self, _kill, self._process, self._connection)
        with contextlib.suppress(EOFError, OSError):
            if self._connection.poll(STARTUP_S) and self._connection.recv_bytes():
                return
        self._stop()
        raise RuntimeError(
            "The grading worker did not start; its own error is printed above. Try "
            "pip install 'math-verify[antlr4_13_2]', then `import math_verify`."
        )


def _kill(process: subprocess.Popen, connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()


SERVE = f"from {__name__} import serve; import sys; serve(*sys.argv[1:])"


def serve(fd: str, timeout_s: str) -> None:
    """What the worker runs: judges (answer, gold) messages while the parent lives."""
    logging.disable()
    _algebraically_equal("1", "1")  # imports sympy, so that no item pays for it
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
            equal = _algebraically_equal(answer, gold)
        except Exception:  # whatever sympy trips over is no right answer
            equal = False
        connection.send_bytes(b"1" if equal else b"0")
        signal.setitimer(signal.ITIMER_REAL, 0)


def _algebraically_equal(answer: str, gold: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    # Its fallbacks take any number in the text, or its first words, for the whole.
    answers, golds = (
        parse(
            rf"\boxed{{{MISREAD_SPACE.sub('', TRAILING_UNIT.sub('', text))}}}",
            [LatexExtractionConfig(boxed_match_priority=0)],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        for text in (answer, gold)
    )
    options = {"allow_set_relation_comp": True, "timeout_seconds": None}
    return not _far_apart(answers[0], golds[0]) and verify(golds, answers, **options)


def _far_apart(answer, gold) -> bool:
    """Whether two numbers differ where verify's 6 decimals do not, as 0 and 2^-98."""
    if not (getattr(answer, "is_number", False) and getattr(gold, "is_number", False)):
        return False
    difference = (answer - gold).doit()
    if difference.is_Rational:
        return difference != 0
    size = abs(gold.n())
    return bool(size and abs(difference.n()) > RELATIVE_TOLERANCE * size)


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):  # /proc is Linux only
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

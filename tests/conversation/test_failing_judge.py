"""An error of the judge is heard of while an engine is away."""

import threading
import time

import pytest
from fakes import FakeTeacher
from search_fakes import Engine, collector, dialogue, encode, problem

from ovd_jax.errors import TeacherError
from ovd_jax.sampling.completion import Completion

ANSWER = "<think> x </think>\n<answer> Ada </answer>"
SEARCH = "<think> x </think>\n<search> who </search>"


class Pending:
    """Scores that fail a moment later."""

    def on_error(self, tell):
        threading.Timer(0.2, tell, [TeacherError("the key has expired")]).start()

    def result(self):
        raise TeacherError("the key has expired")

    def cancel(self):
        pass


class Judge(FakeTeacher):
    def begin(self, requests, *, seed, request_keys=None):
        return Pending()


def stream(prompts, *, samples, environment, **_):
    """The first row answers; the second one waits for its search."""
    turns = [
        Completion(tuple(encode(text)), (0.0,) * len(encode(text)), True)
        for text in (ANSWER, SEARCH)
    ]
    environment.ended([(0, turns[0], 400)])
    yield 0, turns[0]
    environment.ended([(1, turns[1], 400)])
    environment.observations([1])


def test_the_error_of_a_judge_ends_the_wait_for_a_search():
    over = threading.Event()
    talk = dialogue(Engine(lambda query: over.wait(60) and ()))
    made = collector(Judge(), talk, samples=2)
    started = time.monotonic()
    try:
        with pytest.raises(TeacherError, match="the key has expired"):
            made.collect([problem()], stream, seed=0, stream=stream)
        assert time.monotonic() - started < 30
    finally:
        over.set()
        talk.tools.pool.close()

"""Records come back equal from bytes, and bytes bring nothing but records."""

import contextlib
import dataclasses
import math
import pickle
import random
import subprocess

import msgpack
import numpy as np
import pytest
from fakes import group, kept, problem, swapped, trajectory

from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.records import RECORDS, decode, encode
from ovd_jax.rollout.trajectory import Verdict
from ovd_jax.search.base import Document
from ovd_jax.tasks.base import Grade
from ovd_jax.teacher.base import Score

SCORE = Score(7.0, (0.1,) * 10, 1e-17)
GROUP = group(
    kept(trajectory(3, 2), 1.0), swapped(trajectory(4), trajectory(2, teacher=(0,))),
    prompt=(5, 6),
)  # fmt: skip
BUFFER = RolloutBuffer((GROUP, GROUP), [[[0.5, -1.0], [2.0]]] * 2, 10, (GROUP,))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 2**63, 0.1, -0.0, math.inf, 5e-324, "", "\ud83d \u2028 \0",
        b"\xff", [], (), (1,), [(1, "a"), [2]], {"a": None, "b": {"c": (1.5,)}}, 
        {7: -1.0, -2: -0.25}, {(1, 2): "by place"},
        SCORE, Verdict((SCORE,), None, 3.5), Document("t", "x" * 10_000, "id", 0.1),
        Grade(0.0, None, "no_answer", {"f1": 0.25}), problem("3+4", "7"), GROUP, BUFFER,
        (BUFFER, {"seconds": 0.125, "rate": None}), [[None, SCORE], ["a", None]],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_comes_back_equal_and_of_its_type(value):
    again = decode(encode(value))
    assert again == value
    assert repr(again) == repr(value)  # tuples are no lists, -0.0 is not 0.0


def test_a_buffer_that_was_stored_logs_what_the_collected_one_does():
    again = decode(encode(BUFFER))
    assert list(again.rows()) == list(BUFFER.rows())
    assert again.metrics() == BUFFER.metrics()
    finals = [row["final"] is None for row in again.rows()]
    assert len(set(finals)) == 2  # replaced, and the student's own


def test_numpys_numbers_and_other_mappings_become_plain_ones():
    values = decode(encode([np.float32(0.5), np.int64(3), np.bool_(True)]))
    assert list(map(type, values)) == [float, int, bool]
    assert math.isnan(decode(encode(math.nan)))


class Lookalike:
    """No record, whatever it is called."""


Lookalike.__name__ = "Score"


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, len, Lookalike(), [Lookalike()], np.zeros(3), ValueError("a")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_record_is_not_written(value):
    with pytest.raises(TypeError, match="not among the records"):
        encode(value)


def a_record(name, fields) -> bytes:
    return msgpack.packb(msgpack.ExtType(2, msgpack.packb([name, fields])))


def nested(depth) -> bytes:
    data = msgpack.packb(1)
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(1, msgpack.packb([1]) + data))
    return data


NO_RECORDS = [
    b"",
    b"\xc1",
    pickle.dumps(7),
    encode(BUFFER)[:-1],
    encode(1) + b"1",
    a_record("Popen", {"args": "true"}),
    a_record("object", {}),
    a_record(7, {}),
    a_record(["Score"], {}),
    a_record("Score", 3),
    a_record("Score", {"value": 1.0}),
    a_record("Score", {"value": 1.0, "probs": (), "outside": 0.0, "__class__": 1}),
    msgpack.packb(msgpack.ExtType(1, b"a")),
    msgpack.packb(msgpack.ExtType(2, msgpack.packb({"a": 1}))),
    msgpack.packb(msgpack.ExtType(3, b"")),
    b"\x91" * 100_000 + b"\x01",
    nested(3),
]


@pytest.mark.parametrize("data", NO_RECORDS)
def test_bytes_that_are_no_records_are_refused(data):
    with pytest.raises(ValueError, match="no record of a run"):
        decode(data)


def test_bytes_at_random_do_no_harm():
    rng, good = random.Random(0), encode(BUFFER)
    for _ in range(500):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(ValueError):
            decode(bytes(damaged))


def test_every_record_is_plain_data():
    """Making one runs nothing."""
    assert subprocess.Popen not in RECORDS.values()
    for record in RECORDS.values():
        assert dataclasses.is_dataclass(record)
        assert not hasattr(record, "__post_init__")

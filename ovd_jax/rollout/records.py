"""Records of rollouts as bytes and back: data alone, which nothing in it can run.

What a run keeps on disk, and what processes tell each other, is msgpack of plain values
and of the records named here. A stranger's file can hold nothing else.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import msgpack

from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.search.base import Document
from ovd_jax.tasks.base import Grade, Problem
from ovd_jax.teacher.base import Score

RECORDS = {
    record.__name__: record
    for record in (
        Document, Grade, Group, Problem, Rollout, RolloutBuffer, Score, Trajectory,
        Verdict,
    )
}  # fmt: skip
_TUPLE, _RECORD = 1, 2  # msgpack's extension codes


def encode(value: Any) -> bytes:
    """`value` as msgpack: None, numbers, text, bytes, lists, tuples, mappings and the
    records of `RECORDS`, in one another. Raises TypeError for anything else."""
    return cast(
        bytes,
        msgpack.packb(
            value, default=_extension, strict_types=True, unicode_errors="surrogatepass"
        ),
    )


def decode(data: bytes) -> Any:
    """What `encode` was given. Raises ValueError where `data` is not such."""
    try:
        return msgpack.unpackb(
            data,
            ext_hook=_restored,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"no record of a run ({error})") from error


def _extension(value):
    """What msgpack does not know, in its terms."""
    if type(value) is tuple:
        return msgpack.ExtType(_TUPLE, encode(list(value)))
    name = type(value).__name__
    if RECORDS.get(name) is type(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return msgpack.ExtType(_RECORD, encode([name, fields]))
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "dtype") and value.ndim == 0:  # NumPy's own numbers
        return value.item()
    raise TypeError(
        f"{type(value).__qualname__} is not among the records that are stored and "
        "sent; name it in ovd_jax/rollout/records.py."
    )


def _restored(code: int, data: bytes):
    value = decode(data)
    if code == _TUPLE and isinstance(value, list):
        return tuple(value)
    if code != _RECORD or not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"extension {code} is none of ours")
    name, fields = value
    record = RECORDS.get(name) if isinstance(name, str) else None
    if record is None:
        raise ValueError(f"{name!r} is no record")
    if [field.name for field in dataclasses.fields(record)] != list(fields):
        raise ValueError(f"{name} had other fields: {', '.join(map(str, fields))}")
    return record(**fields)

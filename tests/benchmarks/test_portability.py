"""The programs of training and sampling, for devices that are not here."""

import dataclasses
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import abstract
import portability

from ovd_jax.cli import flags
from ovd_jax.models.transformer import TransformerConfig

TINY = TransformerConfig(
    vocab_size=512, width=256, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=128,
    mlp_width=512,
)  # fmt: skip
PROGRAMS = ["add", "apply", "prefill", "decode"]


def knobs(**changes):
    config = flags.load_file("benchmarks/configs/portability.py")
    config = config.copy_and_resolve_references()
    config.update(dict(prompt=64, completion=96, samples=2, chunk=128) | changes)
    return config


def test_one_lowering_of_each_program_is_for_every_platform():
    rows = portability.lower(knobs(), TINY)
    assert [row["program"] for row in rows] == PROGRAMS
    assert all(row[platform] for row in rows for platform in portability.PLATFORMS)


def test_what_a_device_holds_is_its_part_of_every_array():
    """Two of the mesh's axes are of one device only, so that what is split is known."""
    devices = jax.sharding.AbstractMesh((1, 2, 1), ("data", "fsdp", "tp"))
    rows = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("fsdp"))
    tree = {
        "split": jax.ShapeDtypeStruct((6, 5), jnp.bfloat16, sharding=rows),
        "whole": jax.ShapeDtypeStruct((7,), jnp.int32),
    }
    assert abstract.on_device(tree) == 3 * 5 * 2 + 7 * 4


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Used 20.50G of 15.75G hbm. Exceeded", (20.5 * 2**30, 15.75 * 2**30)),
        ("temporaries (2.00T) exceeds available HBM (95.73G).", (2**41, 95.73 * 2**30)),
        ("Mosaic failed", None),
    ],
)
def test_a_compiler_says_how_much_there_is(message, expected):
    expected = expected and tuple(int(size) for size in expected)
    assert abstract.overflow(Exception(message)) == expected


@pytest.mark.slow
def test_a_program_that_is_known_is_not_compiled_again(monkeypatch):
    point = ("tiny", "cpu:1", 1, 1, 2)
    monkeypatch.setitem(portability.KNOWN, "tiny", TINY)
    rows = portability.measure(knobs(), point, {})
    assert [row["program"] for row in rows] == PROGRAMS
    assert all(row["needs"] == row["peak"] + row["beside"] > 0 for row in rows)
    assert all(row["fits"] is None for row in rows)  # a computer's memory is its own
    monkeypatch.setattr(portability, "compiled", lambda *_: pytest.fail("compiled"))
    assert portability.measure(knobs(), point, {r["key"]: r for r in rows}) == rows


class Unfinished:
    """A program whose compilation, once its files are written, goes on until `end`."""

    def __init__(self, lowered):
        self.end = threading.Event()
        self._lowered = lowered

    def compile(self, compiler_options):
        compiled = self._lowered.compile(compiler_options=compiler_options)
        self.end.wait(60)
        return compiled


def test_places_of_buffers_are_known_before_a_program_is_compiled(monkeypatch):
    monkeypatch.setattr(abstract, "_SETTLED_S", 0.1)
    x = jnp.ones((256, 256))
    lowered = jax.jit(lambda x: jnp.sin(x @ x) @ jnp.cos(x @ x)).lower(x)
    expected = abstract.memory(lowered.compile())["temporaries"]
    assert expected >= x.nbytes
    unfinished = Unfinished(lowered)
    assert abstract.placed(unfinished) == {"temporaries": expected}
    unfinished.end.set()
    assert abstract.placed(lowered) == {"temporaries": expected}  # if it is done first


def test_a_program_that_cannot_be_compiled_says_why():
    class Broken:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("Mosaic failed")

    with pytest.raises(jax.errors.JaxRuntimeError, match="Mosaic failed"):
        abstract.placed(Broken())


@pytest.mark.slow
def test_tpus_get_their_kernel(monkeypatch):
    pytest.importorskip("libtpu")
    deep = dataclasses.replace(TINY, num_layers=5)
    monkeypatch.setitem(portability.KNOWN, "tiny", deep)
    found = {}
    for attention in ("auto", "blocked"):
        config = knobs(
            prompt=512, completion=1024, samples=4, attention=attention,
            programs=("add",),
        )  # fmt: skip
        point = ("tiny", "v5e:2x2", 2, 2, 0)
        try:
            (found[attention],) = portability.measure(config, point, {})
        except abstract.Unavailable as error:
            pytest.skip(str(error))
    kernel, blocked = found["auto"], found["blocked"]
    assert kernel["fits"]
    assert kernel["arguments"] == blocked["arguments"]
    assert kernel["temporaries"] != blocked["temporaries"]  # another program
    assert kernel["collectives"]["all-gather"]["count"] > deep.num_layers

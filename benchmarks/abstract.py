"""The programs of training, compiled from shapes alone for devices that need not exist.

No weight is ever allocated. `use("cpu", 8)` or `use("v5e:2x4")` says where; everything
else works on the mesh that is set then:

    with jax.set_mesh(abstract.use("v5e:2x4", fsdp=4, tp=2)):
        state = abstract.state(KNOWN["Qwen/Qwen2.5-1.5B"], tx, jnp.bfloat16)
        part = abstract.batch(packs=4, prompt=256, completions=8, length=1024)
        for name, program in abstract.update(stepper, state, part).items():
            print(name, abstract.memory(program()))
"""

import concurrent.futures
import contextlib
import functools
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Before jax: no accelerator is used, and libtpu need ask no server where it runs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it only compiles

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ovd_jax.learning.batch import Batch
from ovd_jax.learning.update import Stepper, TrainState
from ovd_jax.models.lora import Lora, adapt, trainable
from ovd_jax.models.sharding import ROWS, make_mesh, shardings, without_fsdp
from ovd_jax.models.transformer import Transformer, TransformerConfig, is_matrix
from ovd_jax.sampling.decode import decode, prefill, row_rngs
from ovd_jax.sampling.decoder import Decoder, unstack

# Kernels carry the names of their source files: without folders a program is the same
# in any checkout, and what was measured of it is found again.
jax.config.update("jax_hlo_source_file_canonicalization_regex", ".*/")

BYTES = {  # ours: of `memory_analysis()`; all of one device
    "arguments": "argument_size_in_bytes",
    "outputs": "output_size_in_bytes",
    "aliased": "alias_size_in_bytes",
    "temporaries": "temp_size_in_bytes",
}
_OVERFLOW = (
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) (?:hbm|\w+)"),
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
)
_TEMPORARIES = re.compile(  # but those in a TPU's vector memory, which have a colour
    r"^allocation \d+: size (\d+), (?:page \d+, )?preallocated-temp", re.MULTILINE
)
_SETTLED_S = 1.0
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
FULL = Lora(rank=0, alpha=1.0, targets=())


class Unavailable(Exception):
    """These devices cannot be compiled for here; the message says why."""


def use(
    platform: str, count: int = 0, *, data: int = 1, fsdp: int = -1, tp: int = 1
) -> jax.sharding.Mesh:
    """A mesh of `count` virtual CPU devices, or of all of a TPU topology ("v5e:2x4").

    Virtual devices have to be asked for before jax has made any: the most that a
    program will want first. Raises Unavailable.
    """
    if platform == "cpu":
        devices = virtual_devices(count)
    else:
        devices = topology_devices(platform)
    return make_mesh(data=data, fsdp=fsdp, tp=tp, devices=devices)


def virtual_devices(count: int) -> list:
    """`count` CPU devices."""
    with contextlib.suppress(RuntimeError):  # there are some already
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise Unavailable(
            f"{count} virtual CPU devices were asked for after jax had made "
            f"{len(devices)}; ask for the most first."
        )
    return devices[:count]


@functools.cache
def topology_devices(name: str) -> list:
    """The devices of a TPU topology as libtpu's compiler has it; no TPU is needed."""
    try:
        return topologies.get_topology_desc(name, platform="tpu").devices
    except Exception as error:  # libtpu is absent, or does not know the name
        reason = str(error).strip().splitlines()[0]
        raise Unavailable(f"{name}: {reason} (`pip install libtpu`?)") from error


def model(config: TransformerConfig, dtype=jnp.bfloat16) -> Transformer:
    """A model that computes in `dtype`, its float32 weights laid out on the mesh."""
    return laid_out(lambda: Transformer(config, jax.random.key(0), dtype))


def state(
    config: TransformerConfig,
    tx: optax.GradientTransformation,
    dtype=jnp.bfloat16,
    lora: Lora = FULL,
    attention: str = "auto",
) -> TrainState:
    """What training holds of such a model; under adapters its matrices are `dtype`."""
    shapes = jax.eval_shape(lambda: Transformer(config, jax.random.key(0), dtype))
    shapes.attention = attention
    shapes = frozen(shapes, dtype) if lora.rank else shapes

    def create(model):
        return TrainState.create(adapt(model, lora, jax.random.key(0)), tx)

    return with_layout(jax.eval_shape(create, shapes))


def frozen(model: Transformer, dtype) -> Transformer:
    """The shapes of a model that is not trained: its matrices are kept as `dtype`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.update(dtype=dtype) if is_matrix(path) else x, model
    )


def batch(*, packs: int, prompt: int, completions: int, length: int) -> Batch:
    """`packs` prompts, each with full `completions` behind it, split over the mesh."""

    def rows(dtype, *shape):
        return jax.ShapeDtypeStruct((packs, *shape), dtype, sharding=on_mesh(ROWS))

    slots = completions * length
    integers, numbers = rows(jnp.int32, slots), rows(jnp.float32, slots)
    return Batch(
        prompts_BX=rows(jnp.int32, prompt),
        prompt_lengths_B=rows(jnp.int32),
        tokens_BY=integers,
        segments_BY=integers,
        offsets_BY=integers,
        weights_BY=numbers,
        teacher_BY=rows(jnp.bool_, slots),
        advantages_BY=numbers,
        sampler_logprobs_BY=numbers,
        bin_size=length,
    )


class Program(NamedTuple):
    """A jitted function and shapes to call it with; called itself, it is compiled."""

    function: Callable
    args: tuple
    options: dict = {}  # noqa: RUF012 (never changed)

    def trace(self):
        """The function's jaxpr, with what can be done with it."""
        return self.function.trace(*self.args, **self.options)

    def __call__(self):
        return self.trace().lower().compile()


def update(stepper: Stepper, state: TrainState, part) -> dict[str, Program]:
    """The two programs of an optimizer step: `add`, the gradient of one part of a
    batch, and `apply`."""
    grads = with_layout(jax.eval_shape(stepper.zeros, state.model))
    own = state.replace(model=trainable(state.model))
    return {
        "add": Program(stepper.add, (state.model, grads, part)),
        "apply": Program(stepper.apply, (own, grads)),
    }


def sampling(
    model: Transformer, *, prompts: int, prompt: int, samples: int, slots: int
) -> dict[str, Program]:
    """The two programs of sampling: `prefill` reads all prompts and samples a token of
    each row, `decode` goes on to `slots`."""
    how = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    integers = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    limits_PG, stop_ids = integers((prompts, samples)), integers((1,))
    rngs_PG = jax.eval_shape(row_rngs, 0, limits_PG)
    args = (model, integers((prompts, prompt)), integers((prompts,)))
    read = Program(
        prefill, (*args, limits_PG, rngs_PG, stop_ids), how | {"slots": slots}
    )
    state = jax.eval_shape(functools.partial(prefill, **read.options), *read.args)
    state = jax.tree.map(_sampled, state)
    write = Program(decode, (decoder(model), state, stop_ids, slots), how)
    return {"prefill": read, "decode": write}


def decoder(model: Transformer) -> Decoder:
    """The form of `model` that `decode` reads, split as `unstack` leaves it."""
    shapes = jax.eval_shape(unstack, model)
    parts = jax.tree_util.tree_map_with_path(
        lambda path, x: _placed(x, without_fsdp(path, x)),
        {"layers": shapes.layers, "head": shapes.head_VD},
    )
    return shapes.replace(
        embed=model.embed, norm=model.norm, layers=parts["layers"],
        head_VD=parts["head"],
    )  # fmt: skip


def _sampled(x) -> jax.ShapeDtypeStruct:
    """An array of a `DecodeState`: by its rows, and a cache by its heads too."""
    if not x.ndim:
        return _placed(x, P())
    return _placed(x, P(*ROWS, "tp") if x.ndim == 4 else ROWS)


def _placed(x, spec: P) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_mesh(spec))


def memory(program) -> dict[str, int]:
    """Bytes on one device; `peak` is all that a program holds: arguments, what of its
    outputs does not take their place, and temporaries."""
    analysis = program.memory_analysis()
    found = {ours: getattr(analysis, theirs) for ours, theirs in BYTES.items()}
    peak = found["arguments"] + found["outputs"] - found["aliased"]
    return found | {"peak": peak + found["temporaries"]}


def placed(lowered) -> dict[str, int]:
    """What `lowered` is given when its buffers have their places, which is early in its
    compilation: `temporaries`, or of one that does not fit into a TPU's memory all that
    it `wanted` of what is `there`.

    They are as `memory` says, but for a few KiB that a TPU's program needs later. The
    compiler is still at work when this returns.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        compiling = concurrent.futures.ThreadPoolExecutor(1).submit(
            lowered.compile, compiler_options=options
        )
        places = []
        while not (places or compiling.done()):
            places = list(Path(folder).glob("*buffer-assignment.txt"))
            # Once more when there is a file: by then it is whole, or too much.
            concurrent.futures.wait([compiling], timeout=_SETTLED_S)
        if not compiling.done():
            sizes = map(int, _TEMPORARIES.findall(places[0].read_text()))
            return {"temporaries": sum(sizes)}
        try:
            return {"temporaries": memory(compiling.result())["temporaries"]}
        except jax.errors.JaxRuntimeError as error:
            if not (found := overflow(error)):
                raise
            return {"wanted": found[0], "there": found[1]}


def on_device(tree) -> int:
    """Bytes of a tree's arrays on one device."""

    def size(x):
        shape = x.sharding.shard_shape(x.shape) if x.sharding else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))


def overflow(error: Exception) -> tuple[int, int] | None:
    """(bytes wanted, bytes there are) of a program that a TPU's memory cannot hold, as
    its compiler says; None where `error` is about something else."""
    found = next(filter(None, (form.search(str(error)) for form in _OVERFLOW)), None)
    if found is None:
        return None
    wanted, wanted_unit, there, there_unit = found.groups()
    return (
        int(float(wanted) * _UNITS[wanted_unit]),
        int(float(there) * _UNITS[there_unit]),
    )


@functools.cache
def hbm(platform: str) -> int | None:
    """Bytes that a chip has for programs, as its compiler says when asked for more than
    any has; None for virtual CPU devices. To be asked outside of a mesh."""
    if platform == "cpu":
        return None
    chip = jax.sharding.SingleDeviceSharding(topology_devices(platform)[0])
    endless = jax.ShapeDtypeStruct((2**20, 2**20), jnp.int8, sharding=chip)
    try:
        jax.jit(lambda x: x + 1).lower(endless).compile()
    except jax.errors.JaxRuntimeError as error:
        if found := overflow(error):
            return found[1]
        raise
    raise AssertionError(f"{platform} has a TiB of memory")


def laid_out(make: Callable):
    """The shapes of what `make()` returns, in their layout on the mesh."""
    return with_layout(jax.eval_shape(make))


def with_layout(tree):
    """Shapes with the shardings that the table gives them; as they are, without one."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return tree
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        tree,
        shardings(tree, mesh),
    )


def on_mesh(spec: P) -> NamedSharding | None:
    """`spec` on the mesh that is set; None without one."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else NamedSharding(mesh, spec)

"""What training and sampling need on devices that are not here.

    python benchmarks/portability.py
    python benchmarks/portability.py --config.completion=3072 \\
        --config.points="(('Qwen/Qwen2.5-7B', 'v5p:2x2x2', 8, 1, 0),)"

First the programs of an update and of the sampler are each lowered once for CPU, CUDA,
ROCm and TPU. Then they are compiled from shapes alone: for TPU topologies, by the
compiler in libtpu (`pip install libtpu`; without it such points are skipped), and for
virtual CPU devices ("cpu:8"). The table says what a device holds, what it computes and
what it sends to others. Writes benchmarks/results/portability.json; programs found
there are not compiled again.
"""

import hashlib
import importlib.metadata
import time

import abstract
import hlo
import jax
import jax.numpy as jnp
import record

from ovd_jax.cli import flags
from ovd_jax.models.known import KNOWN
from ovd_jax.models.lora import TARGETS, Lora
from ovd_jax.models.sharding import row_shards
from ovd_jax.reporting.progress import results_table
from ovd_jax.training.methods import method_of
from ovd_jax.wiring import training

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
GIB = 2**30


def main(config, output):
    """Lowers, compiles, prints both tables."""
    started = time.time()
    jax.config.update("jax_platforms", "cpu")
    sizes = [size for _, devices, *_ in config.points if (size := cpus(devices))]
    abstract.virtual_devices(max(sizes, default=1))
    lowered = lower(config, KNOWN[config.lower])
    columns = ["program", *PLATFORMS, "kib"]
    table = [[row[name] for name in columns] for row in lowered]
    results_table(f"{config.lower}, one lowering", columns, table)
    earlier = output.read() or output.read_published()
    found = {row["key"]: row for row in earlier.get("rows", [])}
    rows, skipped = [], []

    def write(rows: list[dict]) -> None:
        result = {"config": config.to_dict(), "lowered": lowered, "skipped": skipped}
        output.write(result | {"rows": rows})

    for point in config.points:
        try:
            rows += measure(config, point, found)
        except abstract.Unavailable as error:
            skipped.append(f"{point[1]} skipped: {error}")
        new = {row["key"] for row in rows}
        rest = [row for key, row in found.items() if key not in new]
        write(rows + rest)  # a later run goes on from here
    write(rows)
    show(rows)
    print(*skipped, sep="\n")
    flags.summary(
        lowered=len(lowered), compiled=len(rows), skipped=skipped,
        seconds=round(time.time() - started, 1),
    )  # fmt: skip


def cpus(devices: str) -> int:
    """How many virtual CPU devices `devices` means; 0 for a TPU topology."""
    kind, _, count = devices.partition(":")
    return int(count) if kind == "cpu" else 0


def lower(config, shape) -> list[dict]:
    """Each program lowered once for all platforms, for one device."""
    rows = []
    for name, program in programs(config, shape, jnp.dtype(config.dtype)).items():
        export = jax.export.export(program.function, platforms=PLATFORMS)
        exported = export(*program.args, **program.options)
        rows.append(
            {"program": name, "kib": len(exported.mlir_module_serialized) // 2**10}
            | {platform: platform in exported.platforms for platform in PLATFORMS}
        )
    return rows


def programs(
    config, shape, dtype, lora: Lora = abstract.FULL
) -> dict[str, abstract.Program]:
    """The programs of an update and of the sampler, on the mesh that is set."""
    options = flags.load_file("configs/default.py").copy_and_resolve_references()
    options.update(
        dict(
            max_new_tokens=config.completion, chunk=config.chunk, remat=config.remat,
        )
    )  # fmt: skip
    tx = training.make_optimizer(options)
    state = abstract.state(shape, tx, dtype, lora, config.attention)
    prompts = config.prompts * row_shards()
    part = abstract.batch(
        packs=prompts, prompt=config.prompt, length=config.completion,
        completions=config.samples,
    )  # fmt: skip
    if config.reference:
        part = part.replace(ref_logprobs_BY=part.advantages_BY)
    objective = method_of(options).objective(options, lambda: None, None)
    learner = training.make_learner(options, tx, objective)
    return abstract.update(learner.stepper, state, part) | abstract.sampling(
        state.model, prompts=prompts, samples=config.samples, prompt=config.prompt,
        slots=config.completion,
    )  # fmt: skip


def measure(config, point, found: dict) -> list[dict]:
    """A row for each program on the devices of `point`; those in `found` are not
    compiled again. Raises Unavailable."""
    name, devices, fsdp, tp, rank = point
    count = cpus(devices)
    platform = "cpu" if count else devices
    mesh = abstract.use(platform, count, data=-1, fsdp=fsdp, tp=tp)
    there = abstract.hbm(platform)
    lora = Lora(rank, 2.0 * rank, TARGETS) if rank else abstract.FULL
    rows = []
    with jax.set_mesh(mesh):
        # The CPU has no bfloat16 of its own: XLA would keep float32 copies beside it.
        dtype = jnp.dtype("float32" if count else config.dtype)
        wanted = programs(config, KNOWN[name], dtype, lora)
        beside = held_beside(wanted, dtype, config.reference)
        for program in config.programs:
            traced = wanted[program].trace()
            lowered = traced.lower()
            key = digest(lowered.as_text(), devices, mesh.shape)
            row = found.get(key) or compiled(lowered, key)
            flops = hlo.jaxpr_flops(traced.jaxpr.jaxpr) / mesh.size
            row |= {
                "model": name, "devices": devices, "mesh": list(mesh.shape.values()),
                "lora": rank, "program": program, "beside": beside[program],
                "gflop": round(flops / 1e9, 1),
            }  # fmt: skip
            rows.append(judged(row, there))
    return rows


def compiled(lowered, key: str) -> dict:
    """What the compiler says of a program."""
    started = time.time()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not (found := abstract.overflow(error)):
            raise
        row = {"peak": found[0]}
    else:
        row = abstract.memory(program) | {"collectives": exchanges(program)}
    return row | record.stamp() | {
        "key": key, "seconds": round(time.time() - started, 1)
    }  # fmt: skip


def exchanges(program) -> dict | None:
    """The collectives of a compiled program; None where jaxlib cannot read what libtpu
    made of them, as for some programs of v5p ("async-update instruction should have 1
    operands")."""
    try:
        return hlo.collectives(program.as_text())
    except jax.errors.JaxRuntimeError as error:
        if "async-update" not in str(error):
            raise
        return None


def held_beside(wanted: dict, dtype, has_reference: bool) -> dict[str, int]:
    """Bytes that training holds on a device while each program runs and that are not
    among its arguments: moments, frozen weights, the reference, and for `decode` the
    weights that its own were cast from."""
    model, *_ = wanted["add"].args
    state, _ = wanted["apply"].args
    weights = abstract.on_device(model)
    others = abstract.on_device(state.opt_state)
    own = abstract.on_device(state.model)
    adapted = own < weights
    reference = abstract.on_device(abstract.frozen(model, dtype))
    if adapted or not has_reference:
        reference = 0
    return {
        "add": others + reference,
        "apply": weights - own + reference,
        "prefill": others + reference,
        "decode": others + reference + weights,
    }


def digest(*what) -> str:
    """A name for a program and the compilers it was given to."""
    packages = ("jax", "jaxlib", "libtpu")
    known = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    text = repr([*what, *(known.get(package) for package in packages)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def judged(row: dict, there: int | None) -> dict:
    """`row` with all that a device must hold, and whether it has as much."""
    needs = row["peak"] + row["beside"]
    return row | {"needs": needs, "there": there, "fits": there and needs <= there}


def show(rows: list[dict]) -> None:
    """The table, a device's GiB in it."""
    columns = [
        "model", "devices", "mesh", "lora", "program", "arguments", "temporaries",
        "beside", "needs", "there", "fits", "TFLOP", "collectives",
    ]  # fmt: skip
    table = [
        [
            row["model"].split("/")[-1], row["devices"],
            "x".join(map(str, row["mesh"])), row["lora"] or None, row["program"],
            *(gib(row.get(name)) for name in columns[5:10]),
            {None: None, True: "yes", False: "NO"}[row["fits"]], row["gflop"] / 1e3,
            exchanged(row.get("collectives", {})),
        ]
        for row in rows
    ]  # fmt: skip
    results_table("On one device, in GiB", columns, table)


def gib(size: int | None) -> str | None:
    """Bytes as GiB."""
    return None if size is None else f"{size / GIB:.2f}"


def exchanged(collectives: dict | None) -> str:
    """How many exchanges of each kind, and their GiB."""
    if collectives is None:
        return "not readable"
    return ", ".join(
        f"{found['count']} {kind} {gib(found['bytes'])}"
        for kind, found in collectives.items()
    )


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/portability.py")

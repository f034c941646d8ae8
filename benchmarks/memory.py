"""Token-level distillation and OVD: the paper's memory arithmetic, and what is so.

    python benchmarks/memory.py                      # part of the grid, and real runs
    python benchmarks/memory.py --config.full=True   # the whole grid: an hour
    python benchmarks/memory.py --config.platforms="()" --config.real=False

First Table 1 and Figures 1 and 2 for any model. Then updates compiled from shapes alone
until each buffer has its place, for virtual CPU devices and for TPUs that need not
exist: OVD's, and on-policy distillation with the whole vocabulary at once (`dense`), in
chunks, or with the teacher's likeliest tokens (`top_k`). Each device has the N
completions, all at once, of one prompt. A point that was compiled before is read from
the results. Last, real updates at SmolLM2's size. Writes memory.json and memory_*.png.
"""

import multiprocessing
import sys
import time

import abstract
import comparison
import jax
import jax.numpy as jnp
import memory_plots
import record
import token_level
from portability import cpus, digest
from sides import workload

from ovd_jax.cli import flags
from ovd_jax.models.hf_config import read_config
from ovd_jax.models.known import KNOWN
from ovd_jax.reporting.progress import results_table
from ovd_jax.wiring.models import find_model

FULL = {
    "students": ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B"),
    "lengths": (1024, 2048, 4096, 8192, 16_384, 32_768),
    "samples": (1, 2, 4, 8, 16, 32),
}
POINT = ("platform", "student", "length", "samples", "method")
METHODS = ("ovd", "dense", "chunked", "top_k")
TEACHER = "HuggingFaceTB/SmolLM2-360M-Instruct"  # of the real updates
_LIMIT_S = 3600  # of a point
REAL = {  # one group, all at once
    "prompt": 64, "lengths": [[192] * 8], "remat": "full", "chunk": 128, "k": 64,
    "microbatch_tokens": 1664, "teacher": TEACHER,
}  # fmt: skip


def main(config, output):
    """Prints what was asked for, and writes it beside what earlier runs wrote."""
    started = time.time()
    kept = output.read()
    result = {"paper": arithmetic(config)}
    points, skipped = compile_points(config, output, kept | result)
    result |= {"points": points, "skipped": skipped}
    result["real"] = real(config) if config.real else []
    report(config, result)
    if not config.real:
        result["real"] = kept.get("real", [])
    output.write(result)
    memory_plots.plot(result, output)
    flags.summary(
        skipped=skipped, real=result["real"] if config.real else [],
        points=len(wanted(config, points)), seconds=round(time.time() - started, 1),
    )  # fmt: skip


def architecture(name: str):
    """That of a known name, of a folder or of a hub name."""
    return KNOWN.get(name) or read_config(find_model(name, "student"))


def arithmetic(config) -> dict:
    """The paper's numbers for `config.model`."""
    shape, length = architecture(config.model), config.length
    scale = {"steps": config.steps, "levels": config.levels}
    all_of_batch = token_level.eq_1(shape, length, 4, config.batch)
    return {
        "model": config.model,
        "table_1": token_level.table_1(shape, length),
        "figure_1": token_level.figure(shape, [(n, 1) for n in FULL["lengths"]]),
        "figure_2": token_level.figure(shape, [(length, n) for n in FULL["samples"]]),
        "eq_1_batch": {"B": config.batch, "N": 4} | token_level.sized(all_of_batch),
        "reductions": token_level.reductions(shape, length, **scale),
        "transfers": token_level.transfers(
            shape, length, k=config.k, bytes_per_token=config.bytes_per_token, **scale
        ),
    }


def points(config) -> list[tuple[str, str, int, int]]:
    """(platform, student, L, N) of every update to compile; the small ones first."""
    grid = FULL if config.full else config
    pairs = {(length, 1) for length in grid["lengths"]}
    pairs |= {(config.length_of_samples, n) for n in grid["samples"]}
    return [
        (platform, student, *pair)
        for pair in sorted(pairs)
        for student in grid["students"]
        for platform in config.platforms
    ]


def compile_points(config, output: record.Output, result: dict):
    """(rows, {platform: why it was left out}); rows are written as they come, beside
    the other points of `result`. Points of the same program are taken from there or
    from the published results."""
    rows, known = by_point(result), by_point(output.read_published())
    skipped = {}
    abstract.virtual_devices(max(map(cpus, config.platforms), default=0) or 1)
    for platform, student, length, samples in points(config):
        if platform in skipped:
            continue
        for method in METHODS:
            point = (platform, student, length, samples, method)
            try:
                found = rows.get(point) or known.get(point, {})
                rows[point] = measure(config, *point, found)
            except abstract.Unavailable as reason:
                skipped[platform] = str(reason)
                print(f"{platform} is left out: {reason}", file=sys.stderr)
                break
            output.write(result | {"points": list(rows.values())})
    return list(rows.values()), skipped


def by_point(result: dict) -> dict[tuple, dict]:
    """Rows of results by what they are of."""
    return {tuple(row[x] for x in POINT): row for row in result.get("points", [])}


def wanted(config, rows: list[dict]) -> list[dict]:
    """The rows of the points that the config asks for."""
    asked = set(points(config))
    return [row for row in rows if tuple(row[x] for x in POINT[:-1]) in asked]


def measure(config, platform, student, length, samples, method, known: dict) -> dict:
    """What one update holds on one device: as `known`, if that is of this program."""
    point = (platform, student, length, samples, method)
    lowered, mesh, sizes = lower(config, *point)
    key = digest(lowered.as_text(), platform, mesh.shape)
    if known.get("key") != key:
        known = place_apart(config, point) | record.stamp()
    return known | dict(zip(POINT, point, strict=True)) | {"key": key} | sizes


def lower(config, platform, student, length, samples, method):
    """(the gradient's program for a point, its mesh, bytes of what is beside it)."""
    shape, count = architecture(student), cpus(platform)
    kind = "cpu" if count else platform
    # The CPU has no bfloat16 of its own: XLA would keep float32 copies of everything.
    dtype = jnp.float32 if kind == "cpu" else jnp.bfloat16
    mesh = abstract.use(kind, count)
    stepper = workload.stepper(
        method, remat=config.remat, chunk=config.chunk, k=config.k
    )
    with jax.set_mesh(mesh):
        state = abstract.state(shape, workload.TX, dtype)
        part = abstract.batch(
            packs=mesh.size, prompt=config.prompt, completions=samples,
            length=length - config.prompt,
        )  # fmt: skip
        beside = state.model  # OVD's reference, in float32 as it is kept
        if method == "ovd":
            part = part.replace(ref_logprobs_BY=part.advantages_BY)
        else:
            beside = abstract.model(architecture(config.teacher), dtype)
            beside = abstract.frozen(beside, dtype)
            part = (part, beside)
        program = abstract.update(stepper, state, part)["add"]
        sizes = {
            "state": abstract.on_device((state, state.model)),  # and the gradient
            "beside": abstract.on_device(beside),
            "eq_1": token_level.eq_1(shape, length, samples),
        }
        return program.trace().lower(), mesh, sizes


def place_apart(config, point) -> dict:
    """`abstract.placed` in a process of its own, which ends once it has answered: nine
    tenths of a compilation for TPUs come after that."""
    started = time.time()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_place, args=(theirs, config, point), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_LIMIT_S):
            raise TimeoutError(f"{point}: no answer in {_LIMIT_S} s")
        row = ours.recv()  # EOFError: the process has died, its error is above
    finally:
        process.kill()
        process.join()
    seconds = round(time.time() - started, 1)
    print(*point, row, f"{seconds} s", file=sys.stderr, flush=True)
    return row


def _place(answer, config, point) -> None:
    lowered, *_ = lower(config, *point)
    answer.send(abstract.placed(lowered))
    time.sleep(_LIMIT_S)  # to be killed: the compiler is at work


def real(config) -> list[dict]:
    """Updates that are run: seconds, temporaries and peak RSS, a process for each."""
    rows = []
    for method in METHODS:
        work = REAL | {"name": method, "method": method, "repeats": config.repeats}
        side = comparison.run_side("ours_memory", work)
        rows.append({"method": method} | side | record.stamp())
    return rows


def report(config, result: dict) -> None:
    """All tables."""
    paper = result["paper"]
    for name in ("table_1", "figure_1", "figure_2", "transfers"):
        show(f"{paper['model']}: {name.replace('_', ' ')}", paper[name])
    if rows := [gib(row) for row in wanted(config, result["points"])]:
        show("One device while the gradient is made, GiB", rows)
    if result["real"]:
        show("Real updates: SmolLM2-135M, teacher of 360M, float32", result["real"])


def gib(row: dict) -> dict:
    """A point for people: `state` is weights, moments and gradient, `beside` OVD's
    reference or the teacher; `all` of a program
    that the TPU cannot hold has no `temporaries` of its own."""
    if "wanted" in row:  # its arguments too, which the moments are not
        whole = row["wanted"] + row["state"] // 2
    else:
        whole = row["state"] + row["beside"] + row["temporaries"]
    sizes = {name: row.get(name) for name in ("state", "beside", "temporaries")}
    sizes |= {"all": whole, "eq_1": row["eq_1"]}
    return {name: row[name] for name in POINT} | {
        name: size and round(size / token_level.GIB, 2) for name, size in sizes.items()
    }


def show(title: str, rows: list[dict]) -> None:
    """A table of dicts with the same keys."""
    results_table(title, list(rows[0]), [list(row.values()) for row in rows])


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/memory.py")

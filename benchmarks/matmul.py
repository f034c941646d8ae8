"""Products of few rows with a matrix, in the forms that decoding could use.

    python benchmarks/matmul.py
    python benchmarks/matmul.py --config.rows="(8,)"

Each form reads `mib` MiB of float32 weights once: how near it is to the speed of memory
is what a step of decoding can hope for. A step of the model has the products of
`shapes`, and cannot take less than each of them in its fastest form: `steps` says how
many tokens a second that leaves. Writes benchmarks/results/matmul.json.
"""

import statistics
import time

import comparison
import jax
import jax.numpy as jnp
import record

from ovd_jax.cli import flags
from ovd_jax.reporting.progress import results_table
from ovd_jax.sampling.decoder import upright

FORMS = {  # (the weights as they are kept, the product of x [B, D])
    "x @ W": ("DF", lambda x_BD, w_DF: x_BD @ w_DF),
    "x @ W.T": ("FD", lambda x_BD, w_FD: x_BD @ w_FD.T),
    "upright": ("FD", lambda x_BD, w_FD: upright(w_FD, x_BD.T).T),
    "upright, by 4 rows": ("FD", lambda x_BD, w_FD: in_parts(w_FD, x_BD, 4)),
    "tiles": ("TDF", lambda x_BD, w_TDF: tiled(w_TDF, x_BD)),
}
_TILE = 192  # outputs of a tile; divides those of all shapes


def main(config, output):
    """Times every form at every shape and number of rows."""
    machine = comparison.limits()
    rows = []
    for inputs, outputs, times in config.shapes:
        for count in config.rows:
            for form in FORMS:
                seconds = measure(config, form, count, inputs, outputs)
                speed = 4 * inputs * outputs / seconds / 1e9
                rows.append({
                    "form": form, "rows": count, "inputs": inputs,
                    "outputs": outputs, "a_step": times,
                    "ms": round(1e3 * seconds, 3), "gb_s": round(speed, 1),
                    "limit_share": round(speed / machine["read_gb_s"], 2),
                })  # fmt: skip
    steps = [step(rows, count, machine) for count in config.rows]
    for title, lines in (("Products of few rows", rows), ("A step", steps)):
        columns = list(lines[0])
        table = [[line[column] for column in columns] for line in lines]
        results_table(title, columns, table)
    output.write({"machine": machine, "steps": steps, "rows": rows})
    flags.summary(machine=machine, steps=steps)


def step(rows: list[dict], count: int, machine: dict) -> dict[str, float]:
    """A step's products, each in its fastest form, and as the decoder has them; beside
    what the machine's memory alone would allow."""
    rows = [row for row in rows if row["rows"] == count]
    fastest, ours = {}, 0.0
    for row in rows:
        ms, shape = row["ms"] * row["a_step"], (row["inputs"], row["outputs"])
        fastest[shape] = min(ms, fastest.get(shape, ms))
        ours += ms * (row["form"] == "upright")
    best = sum(fastest.values())
    weights = sum(
        4 * row["inputs"] * row["outputs"] * row["a_step"]
        for row in rows
        if row["form"] == "upright"
    )
    return {
        "rows": count, "best_ms": round(best, 1), "ours_ms": round(ours, 1),
        "memory_ms": round(weights / machine["read_gb_s"] / 1e6, 1),
        "best_tokens_s": round(1e3 * count / best, 1),
    }  # fmt: skip


def in_parts(weight_OD, x_BD, rows: int):
    """As upright, of so many rows at a time."""
    parts = [x_BD[i : i + rows] for i in range(0, len(x_BD), rows)]
    return jnp.concatenate([upright(weight_OD, part.T) for part in parts], 1).T


def tiled(weight_TDF, x_BD):
    """Tiles of a matrix, each as it is read, in one product with a batch."""
    shape = (len(weight_TDF), *x_BD.shape)
    x_TBD = jax.lax.optimization_barrier(jnp.broadcast_to(x_BD, shape))
    return jnp.matmul(x_TBD, weight_TDF).swapaxes(0, 1).reshape(len(x_BD), -1)


def measure(config, form: str, rows: int, inputs: int, outputs: int) -> float:
    """Median seconds of a product; as many matrices as make up `config.mib` are
    multiplied by in turn."""
    layout, product = FORMS[form]
    count = max(1, config.mib * 2**20 // (4 * inputs * outputs))
    shape = {
        "DF": (inputs, outputs),
        "FD": (outputs, inputs),
        "TDF": (outputs // _TILE, inputs, _TILE),
    }[layout]
    keys = jax.random.split(jax.random.key(0), count)
    weights = [jax.random.normal(key, shape) for key in keys]

    @jax.jit
    def run(x_BD, weights):
        for weight in weights:  # one after the other, as layers are
            # All of a product is used: the compiler would leave out what is not.
            total = jax.lax.optimization_barrier(product(x_BD, weight)).sum()
            x_BD = jax.lax.optimization_barrier(x_BD + 1e-9 * total)
        return x_BD

    x_BD = jax.random.normal(jax.random.key(1), (rows, inputs))
    jax.block_until_ready(run(x_BD, weights))
    seconds = []
    for _ in range(config.repeats):
        started = time.perf_counter()
        jax.block_until_ready(run(x_BD, weights))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / count


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/matmul.py")

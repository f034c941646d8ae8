"""Products of few rows with a matrix, in the forms that decoding could use.

    python benchmarks/matmul.py
    python benchmarks/matmul.py --config.rows="(8,)"

Each form reads `mib` MiB of float32 weights once: how near it is to the speed of memory
is what a step of decoding can hope for. Writes benchmarks/results/matmul.json.
"""

import json
import statistics
import time

import comparison
import jax

from ovd_jax import flags
from ovd_jax.progress import results_table
from ovd_jax.sampling.decoder import upright

FORMS = {  # (the weights as they are kept, the product of x [B, D])
    "x @ W": ("DF", lambda x_BD, w_DF: x_BD @ w_DF),
    "x @ W.T": ("FD", lambda x_BD, w_FD: x_BD @ w_FD.T),
    "upright": ("FD", lambda x_BD, w_FD: upright(w_FD, x_BD.T).T),
}


def main(config):
    """Times every form at every shape and number of rows."""
    machine = comparison.limits()
    rows = []
    for shape in config.shapes:
        for count in config.rows:
            for form in FORMS:
                seconds = measure(config, form, count, *shape)
                speed = config.mib * 2**20 / seconds / 1e9
                rows.append({
                    "form": form, "rows": count, "inputs": shape[0],
                    "outputs": shape[1], "gb_s": round(speed, 1),
                    "limit_share": round(speed / machine["read_gb_s"], 2),
                })  # fmt: skip
    columns = list(rows[0])
    table = [[row[column] for column in columns] for row in rows]
    results_table("Products of few rows", columns, table)
    result = {"machine": machine, "rows": rows}
    path = comparison.RESULTS / "matmul.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    flags.summary(**result)


def measure(config, form: str, rows: int, inputs: int, outputs: int) -> float:
    """Median seconds to multiply by as many matrices as make up `config.mib`."""
    layout, product = FORMS[form]
    count = config.mib * 2**20 // (4 * inputs * outputs)
    shape = (inputs, outputs) if layout == "DF" else (outputs, inputs)
    keys = jax.random.split(jax.random.key(0), count)
    weights = [jax.random.normal(key, shape) for key in keys]

    @jax.jit
    def run(x_BD, weights):
        for weight in weights:  # one after the other, as layers are
            x_BD = jax.lax.optimization_barrier(
                x_BD + 1e-9 * product(x_BD, weight)[:1, :1]
            )
        return x_BD

    x_BD = jax.random.normal(jax.random.key(1), (rows, inputs))
    jax.block_until_ready(run(x_BD, weights))
    seconds = []
    for _ in range(config.repeats):
        started = time.perf_counter()
        jax.block_until_ready(run(x_BD, weights))
        seconds.append(time.perf_counter() - started)
    return (
        statistics.median(seconds) * config.mib * 2**20 / (count * 4 * inputs * outputs)
    )


if __name__ == "__main__":
    flags.run(main, doc=__doc__, default="benchmarks/configs/matmul.py")

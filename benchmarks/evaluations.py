"""SmolLM2-135M-Instruct by launch/evaluate.py and configs/eval_math.py, greedy.

    python launch/fetch_smollm2.py
    python benchmarks/evaluations.py
    python benchmarks/evaluations.py --config.parts="('maths',)" --config.data=FOLDER

`gsm8k` are the rows of its test set that come with the package, `maths` some rows of
the sets in a folder. Parts that are not run stay, and attempts are kept in the user's
cache. Writes benchmarks/results/evaluations.json.
"""

import json
from pathlib import Path

import record

from ovd_jax import evaluate
from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.errors import UserError

TOKENS = 160  # an answer, at most
ROWS = "ovd_jax/embedded/data/gsm8k_test_sample.jsonl"


def main(config, output):
    """Evaluates the parts."""
    record.run_parts(config, output, PARTS)


def gsm8k(config) -> dict:
    """The rows of GSM8K in the package."""
    return evaluated(f"{config.run_dir}/gsm8k", data=str(ROOT / ROWS))


def maths(config) -> dict:
    """Rows of the sets in `config.data`."""
    if not config.data:
        raise UserError("The part maths needs --config.data=FOLDER.")
    return evaluated(
        f"{config.run_dir}/maths", data=config.data, eval_sets=config.sets,
        eval_problems=config.problems,
    )  # fmt: skip


def evaluated(run_dir: str, **changes) -> dict:
    """{set: what of its problems is right, with the bootstrap's interval}."""
    options = flags.load_file("configs/eval_math.py").copy_and_resolve_references()
    options.update(
        dict(
            model="smollm2", run_dir=run_dir, max_new_tokens=TOKENS, eval_rows=8
        )
        | changes
    )  # fmt: skip
    evaluate.main(options)
    found = json.loads(Path(run_dir, "results.json").read_text())
    return {
        name: {"problems": of["problems"], "cut_share": of["cut_share"]}
        | of["measures"]["avg@1"]
        for name, of in found["sets"].items()
    }


PARTS = {"gsm8k": gsm8k, "maths": maths}

if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/evaluations.py")

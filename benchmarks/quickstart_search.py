"""The search quickstart as a user runs it, then each student with either engine.

    python benchmarks/quickstart_search.py

Trains with the simulated engine, two seeds, and with BM25, each run a process of its
own with an empty run directory, timed from start to end. Then what came out, and the
student that all began with, is tested on every held-out question with both engines.
Complete runs are not repeated: their summaries are beside their directories. Writes
benchmarks/results/quickstart_search.json.
"""

import functools
import json
from pathlib import Path

import record
from quickstart import run

from ovd_jax.cli import flags
from ovd_jax.reporting.progress import results_table
from ovd_jax.wiring.env import asked_by, make_dialogue, make_env, make_pool
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.models import find_model, load_model, load_tokenizer
from ovd_jax.wiring.student import held_out_sampler
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.training import make_held_out

RUNS = (("simulated", 0), ("simulated", 1), ("bm25", 0))  # engine, seed
ENGINES = ("simulated", "bm25")
_ALL = 10**6  # held-out questions


def main(config, output):
    """Trains, tests, and writes table and JSON."""
    runs = []
    for engine, seed in RUNS:
        folder = f"{config.run_dir}_{engine}_{seed}"
        found = {"engine": engine, "seed": seed, "folder": folder}
        runs.append(found | trained(engine, seed, folder))
    models = {"before": config.model}
    models |= {f"{r['engine']}, seed {r['seed']}": r["folder"] for r in runs}
    tests = [
        {"trained": name, "tested": engine} | held_out(config, model, engine)
        for name, model in models.items()
        for engine in ENGINES
    ]
    publish(output, runs, tests)


def trained(engine: str, seed: int, folder: str) -> dict:
    """The summary of a run; a complete one is not repeated."""
    kept = Path(f"{folder}.json")
    if not kept.is_file():
        backend = f"--config.search.backend={engine}"
        found = run("quickstart_search", seed, folder, backend)
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def held_out(config, model: str, engine: str) -> dict[str, float]:
    """EM and searches, by hops, of a model with an engine."""
    config = config.copy_and_resolve_references()
    config.model, config.search.backend, config.eval_problems = model, engine, _ALL
    return tested(config)


@on_mesh
def tested(config) -> dict[str, float]:
    """The measures of `config.model` on held-out questions."""
    folder = find_model(config.model, "student")
    tokenizer = load_tokenizer(folder)
    task = make_task(config, tokenizer)
    env = make_env(config, task, tokenizer)
    task = asked_by(env, task)
    pool = make_pool(config, training=False)
    held_out = make_held_out(
        config, task=task, tokenizer=tokenizer,
        sampler=held_out_sampler(config, folder, tokenizer, task),
        make_dialogue=functools.partial(
            make_dialogue, config, env, tokenizer, pool, training=False
        ),
    )  # fmt: skip
    return held_out.measure(load_model(folder, config))


def publish(output: record.Output, runs: list[dict], tests: list[dict]) -> None:
    """Writes the JSON, prints table and summary."""
    output.write({"runs": runs, "tests": tests})
    names = ("em", "em/world_1hop", "em/world_2hop")
    counts = ("searches/world_1hop", "searches/world_2hop")
    results_table(
        "Held-out questions",
        ("trained with", "tested with", *names, *counts),
        [
            (
                test["trained"],
                test["tested"],
                *(f"{test[f'eval_{name}']:.1%}" for name in names),
                *(f"{test[f'eval_{name}']:.2f}" for name in counts),
            )
            for test in tests
        ],
    )
    flags.summary(
        longest_seconds=max(r["wall_seconds"] for r in runs),
        em={f"{t['trained']} / {t['tested']}": t["eval_em"] for t in tests},
    )


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/quickstart_search.py")

"""What training a search agent costs, and what sharing prompts saves in its update.

    python benchmarks/search.py
    python benchmarks/search.py --config.parts="('update',)"

`loop` trains configs/quickstart_search.py for some steps with each engine: turns a
second of collecting, and what of that time goes to the search engine, the teacher and
the sampler. `update` times SmolLM2-135M's update on conversations of a search agent,
random weights, with every prompt stored once a group and once a conversation.
`retrieval`, which needs `--config.corpus` and `--config.questions`, times BM25 over
that corpus and over 100,000 passages: made of it, where it is smaller, by repeating
passages with three words in ten exchanged. Writes benchmarks/results/search.json.
"""

import json
import shutil
import statistics
import tempfile
from pathlib import Path

import comparison
import record
import update

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.reporting.progress import results_table
from ovd_jax.reporting.run_dir import read_metrics

# Conversations of about two searches behind a question with its instructions.
UPDATE = {
    "name": "search agent", "prompt": 256, "max_completion": 640,
    "remat": "full", "chunk": 128, "length_multiple": 64, "microbatch_tokens": 2816,
}  # fmt: skip


def main(config, output):
    """Measures the parts and keeps those of earlier runs that were not asked for."""
    record.run_parts(config, output, PARTS)


def loop(config) -> list[dict]:
    """Training with each engine."""
    rows = []
    for engine in config.engines:
        run = Path(config.run_dir) / engine
        shutil.rmtree(run, ignore_errors=True)
        training = flags.load_file("configs/quickstart_search.py")
        with training.unlocked():
            training.update(
                run_dir=str(run), num_steps=config.steps, eval_every=0, eval_problems=8
            )
            training.search.backend = engine
        train.main(training)
        steps = [row for row in read_metrics(run) if "seconds_collect" in row]
        rows.append(shares(engine, steps[config.steps // 3 :], training))
    results_table(
        "Training a search agent", list(rows[0]), [[*r.values()] for r in rows]
    )
    return rows


def shares(engine: str, steps: list[dict], training) -> dict:
    """Of the median step."""

    def median(name: str) -> float:
        return statistics.median(step.get(name) or 0.0 for step in steps)

    conversations = training.problems_per_step * training.samples
    collect = median("seconds_collect")
    parts = {name: median(f"seconds_{name}_waited") for name in ("search", "teacher")}
    parts["sampler"] = collect - sum(parts.values())
    return {
        "engine": engine,
        "turns_per_s": round(conversations * median("turns") / collect, 1),
        "tokens_per_s": round(conversations * median("completion_tokens") / collect),
        "seconds_collect": round(collect, 2),
        "seconds_update": round(median("seconds_update"), 2),
        **{f"share_{name}": round(took / collect, 3) for name, took in parts.items()},
    }


def updates(config) -> dict:
    """Prompts stored once a group against once a conversation."""
    groups = update.lognormal(1, 400, UPDATE["max_completion"])
    alone = [[length] for group in groups for length in group]
    shared, unshared = (
        comparison.run_side(
            "ours_update", UPDATE | {"lengths": lengths, "repeats": config.repeats}
        )
        for lengths in (groups, alone)
    )
    ratio = shared["seconds"] / unshared["seconds"]
    columns = ("prompts", "seconds", "slots", "temporaries_mib")
    results_table(
        "An update on conversations",
        columns,
        [
            (name, *(f"{side[key]:.4g}" for key in columns[1:]))
            for name, side in (("shared", shared), ("not shared", unshared))
        ],
    )
    return {"shared": shared, "unshared": unshared, "ratio": ratio}


def retrieval(config) -> list[dict]:
    """BM25 over the corpus as it is and over more passages made of it: the first row of
    each size builds the index, the second finds it built."""
    corpus, data = Path(config.corpus), Path(config.questions)
    if not (corpus.is_file() and data.is_file()):
        raise UserError(
            "The part retrieval needs --config.corpus (JSONL of id, title, text) and "
            "--config.questions (JSONL of question)."
        )
    lines = data.read_text("utf-8").splitlines()
    work = {
        "corpus": str(corpus),
        "queries": [json.loads(x)["question"] for x in lines],
    }
    size = sum(1 for _ in corpus.open("rb"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for passages in (size, config.passages):
            work |= {"name": passages, "passages": passages, "folder": folder}
            comparison.run_side("ours_retrieval", work | {"make": True})
            for index in ("built", "found"):
                side = comparison.run_side("ours_retrieval", work | {"make": False})
                rows.append({"index": index, **side})
    results_table(
        f"BM25, {len(lines)} questions, one at a time, the best 5",
        list(rows[0]),
        [[x if isinstance(x, str) else f"{x:.4g}" for x in r.values()] for r in rows],
    )
    return rows


PARTS = {"loop": loop, "update": updates, "retrieval": retrieval}

if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/search.py")

"""Writes rows that teach a model to be a search engine; `launch/sft.py` reads them."""

import glob
import itertools
import json
import random
import time
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.paths import cache_dir
from ovd_jax.search.bm25 import Bm25
from ovd_jax.search.simulator_prompts import find_prompt
from ovd_jax.tasks.data.simulator_data import (
    corpus_pairs,
    is_held_out,
    load_recorded,
    recorded_pairs,
    rows,
)


def main(config: ConfigDict) -> None:
    """Rows from `config.trajectories` and `config.corpus`, shuffled, to
    `config.output`."""
    started = time.time()
    folder = Path(config.index_dir or cache_dir() / "bm25")
    engine = Bm25(config.corpus, topk=config.documents, cache=folder)
    runs = load_recorded(recorded_files(config.trajectories))
    used = [r for r in runs if not is_held_out(r.question, config.held_out_share)]
    pairs = list(
        itertools.chain(
            recorded_pairs(used, engine),
            corpus_pairs(engine, config.corpus_queries, seed=config.seed),
        )
    )
    random.Random(config.seed).shuffle(pairs)
    made = list(
        rows(
            pairs,
            find_prompt(config.prompt),
            count=config.documents,
            told_share=config.told_share,
            seed=config.seed,
        )
    )
    if not made:
        raise UserError(
            f"No query of {config.trajectories!r} and none of {config.corpus_queries} "
            "made of the corpus has documents of both kinds; raise corpus_queries, or "
            "pass the corpus that the trajectories searched."
        )
    output = Path(config.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    flags.summary(
        rows=len(made),
        runs=len(runs),
        runs_held_out=len(runs) - len(used),
        queries=len(pairs),
        output=str(output),
        seconds=round(time.time() - started, 1),
    )


def recorded_files(pattern: str) -> list[str]:
    """The files that a pattern such as FOLDER/*.jsonl names; none for an empty one."""
    found = sorted(glob.glob(pattern)) if pattern else []
    if pattern and not found:
        raise UserError(f"trajectories {pattern!r} names no file.")
    return found

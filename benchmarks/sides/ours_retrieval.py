"""BM25 over a corpus of so many passages: what building its index takes, or, in a
process that finds it built, what a query takes.

A corpus that is too small is repeated, three words in ten replaced by words from
anywhere else in it: as many distinct passages, with their own words.
"""

import json
import random
import time
from pathlib import Path

import timing

from ovd_jax.search.base import Query
from ovd_jax.search.bm25 import Bm25

REPLACED = 0.3  # of the words of a repeated passage


def enlarged(corpus: Path, passages: int, output: Path) -> None:
    """Writes `passages` passages made of those in `corpus`."""
    rows = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    rng = random.Random("enlarged")
    with open(output, "w", encoding="utf-8") as file:
        for number in range(passages):
            row = rows[number % len(rows)]
            if number >= len(rows):
                words = row["text"].split()
                for place in range(len(words)):
                    if rng.random() < REPLACED:
                        other = rng.choice(rows)["text"].split()
                        words[place] = rng.choice(other)
                row = row | {"id": f"{row['id']}-{number}", "text": " ".join(words)}
            file.write(json.dumps(row) + "\n")


work = timing.work()
folder = Path(work["folder"])
corpus = folder / f"{work['passages']}.jsonl"
if work["make"]:
    enlarged(Path(work["corpus"]), work["passages"], corpus)
    timing.report(mib=corpus.stat().st_size / 2**20)
else:
    started = time.perf_counter()
    engine = Bm25(corpus, topk=5, cache=folder)
    ready = time.perf_counter() - started
    took = []
    for query in work["queries"]:
        started = time.perf_counter()
        engine.find([Query(query)], [0])
        took.append(time.perf_counter() - started)
    took.sort()
    timing.report(
        passages=len(engine),
        seconds_ready=ready,
        ms_median=1e3 * took[len(took) // 2],
        ms_p99=1e3 * took[len(took) * 99 // 100],
    )

"""Does a model that learned to play the search engine tell good turns from bad ones?

    python benchmarks/discrimination.py --config.trajectories='RUNS/*.jsonl' \
        --config.models="('smollm2', 'runs/simulator_sft')"

Scores turns of recorded searches that `launch/make_simulator_data.py` held out, as the
environment agent does, and the same turns corrupted, with each of the models. A turn is
corrupted by a query of another question (`other query`), by the words of its query in
any order and half of them gone (`broken query`), or by thought and query of another
question (`other turn`). Prints the AUC of the mean score for each kind and writes
benchmarks/results/discrimination.json.
"""

import random
import time

import record

from ovd_jax.cli import flags
from ovd_jax.client.accounting import auc
from ovd_jax.errors import UserError
from ovd_jax.make_simulator_data import recorded_files
from ovd_jax.reporting.progress import results_table
from ovd_jax.tasks.data.simulator_data import is_held_out, load_recorded
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.teacher import make_teacher

KINDS = ("other query", "broken query", "other turn")
_MAX_THOUGHT = 600  # characters: its end, which leads to the query


def main(config, output):
    """Scores all turns with each model, prints the table and writes the JSON."""
    started = time.time()
    summary = on_mesh(measure)(config)
    output.write(summary)
    flags.summary(**summary, seconds=round(time.time() - started, 1))


def measure(config) -> dict:
    """AUC of good turns against corrupted ones, by model and kind."""
    requests = held_out_turns(config)
    rows = []
    for model in config.models:
        with config.unlocked():
            config.teacher.model = model
        teacher = make_teacher(config)
        scores = teacher.score([r for _, r in requests], seed=config.seed)
        of_kind = {kind: [] for kind in ("good", *KINDS)}
        for (kind, _), score in zip(requests, scores, strict=True):
            of_kind[kind].append(score.value)
        good = of_kind.pop("good")
        bad = [value for values in of_kind.values() for value in values]
        found = {kind: auc(good, values) for kind, values in of_kind.items()}
        rows.append({"model": model, "auc": auc(good, bad), **found})
    results_table(
        f"Good turns against corrupted ones, {len(good)} of each kind: AUC",
        ("model", "all", *KINDS),
        [(r["model"], *(f"{r[k]:.3f}" for k in ("auc", *KINDS))) for r in rows],
    )
    return {"turns": len(good), "rows": rows}


def held_out_turns(config) -> list[tuple[str, ScoreRequest]]:
    """(kind, request): a good turn and one of each corruption, of runs that ended
    well."""
    runs = [
        run
        for run in load_recorded(recorded_files(config.trajectories))
        if run.right and run.turns and is_held_out(run.question, config.held_out_share)
    ]
    rng = random.Random(f"turns-{config.seed}")
    rng.shuffle(runs)
    runs = runs[: config.turns_scored]
    if len({run.question for run in runs}) < 2:
        raise UserError(
            f"{config.trajectories!r} holds {len(runs)} held-out runs that searched "
            "and ended well; pass more, or raise held_out_share."
        )
    requests = []
    for run in runs:
        thought, query = run.turns[0]
        other = rng.choice([r for r in runs if r.question != run.question])
        other_thought, other_query = other.turns[0]
        words = query.split()
        broken = " ".join(rng.sample(words, max(1, len(words) // 2)))
        turns = {
            "good": (thought, query),
            "other query": (thought, other_query),
            "broken query": (thought, broken),
            "other turn": (other_thought, other_query),
        }
        requests += [
            (kind, ScoreRequest(run.question, "", written(*turn), whole=False))
            for kind, turn in turns.items()
        ]
    return requests


def written(thought: str, query: str) -> str:
    """A turn as a student writes it."""
    shown = thought[-_MAX_THOUGHT:]
    return f"<think> {shown} </think>\n<search> {query} </search>"


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/discrimination.py")

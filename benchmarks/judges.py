"""Teachers as judges: how well their scores tell right steps from wrong ones.

    python benchmarks/judges.py
    python benchmarks/judges.py --config.parts="('processbench',)" \\
        --config.data=processbench_gsm8k.jsonl,processbench_math.jsonl

`arithmetic` is configs/teacher_audit.py: the embedded teacher on held-out problems that
are solved with slips, and on what the untrained student samples for them. `world`: the
environment agent of the search quickstart on turns of held-out conversations in its
made-up world, some of them slips. `processbench` audits any other model on rows of
ProcessBench. Parts that are not run stay. Writes
benchmarks/results/judges.json.
"""

import json
from pathlib import Path

import record

from ovd_jax import evaluate
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.evaluation.judge import area, expected
from ovd_jax.toy.world import World
from ovd_jax.toy.world_examples import labelled_turns
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.teacher import make_teacher


def main(config, output):
    """Runs the parts, and keeps those of earlier runs that were not asked for."""
    record.run_parts(config, output, PARTS)


def arithmetic(config) -> dict:
    """The audit of the embedded teacher."""
    return audited(config, "arithmetic")


def processbench(config) -> dict:
    """The audit of `config.model`, or of the model at `config.url`."""
    if not config.data:
        raise UserError("The part processbench needs --config.data=FILE,FILE.")
    return audited(
        config, "processbench", data=config.data, eval_problems=config.problems,
        **{
            "teacher.prompt": "digits", "teacher.model": config.model,
            "teacher.url": config.url, "teacher.rows": 8,
        },
    )  # fmt: skip


def audited(config, part: str, **changes) -> dict:
    """What launch/evaluate.py finds by configs/teacher_audit.py with `changes`."""
    options = flags.load_file("configs/teacher_audit.py").copy_and_resolve_references()
    options.run_dir = f"{config.run_dir}/{part}"
    options.update_from_flattened_dict(changes)
    evaluate.main(options)
    found = json.loads(Path(options.run_dir, "audit.json").read_text())
    found["data"] = ",".join(Path(name).name for name in found["data"].split(","))
    return found


def world(config) -> dict:
    """The environment agent's scores of turns whose exact scores are known."""
    options = flags.load_file("configs/quickstart_search.py")
    requests, exact = labelled_turns(World(), config.conversations)
    teacher = on_mesh(make_teacher)(options)
    scores = teacher.score(requests, seed=options.seed)
    good = [label >= options.threshold for label in exact]
    values = [expected(score) for score in scores]
    agreed = sum(
        (score.value >= options.threshold) == is_good
        for score, is_good in zip(scores, good, strict=True)
    )
    return {
        "conversations": config.conversations, "turns": len(exact),
        "good_turns": sum(good), "threshold": options.threshold,
        "auc": area(list(zip(values, good, strict=True))),
        "agreement": agreed / len(exact),
    }  # fmt: skip


PARTS = {"arithmetic": arithmetic, "world": world, "processbench": processbench}

if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/judges.py")

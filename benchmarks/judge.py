"""How well the embedded teachers judge what students really write.

    python benchmarks/judge.py
    python benchmarks/judge.py --config.parts="('processbench',)" \\
        --config.data=processbench_gsm8k.jsonl,processbench_math.jsonl

`arithmetic` and `world`: held-out problems of the quickstart and of the search
quickstart, sampled from the untrained student, from one trained for half as many steps,
and from one fully trained; every step is checked exactly. AUC of steps and of
solutions, calibration error, and at each threshold the share that is accepted, how many
of these are right, and how many of the right ones are accepted. The students are
trained first; complete runs are not repeated. `slips`: the same teachers on mistakes
that were made up. `processbench` audits any other model on rows of ProcessBench. Parts
that are not run stay. Writes benchmarks/results/judge.json.
"""

import json
from pathlib import Path

import record

from ovd_jax import evaluate, train
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.evaluation.judge import area, expected, measures
from ovd_jax.seeds import derive
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.toy.world import World
from ovd_jax.toy.world_examples import labelled_turns
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.models import find_model, load_tokenizer
from ovd_jax.wiring.student_samples import judged_samples
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.teacher import make_teacher


def main(config, output):
    """Runs the parts, and keeps those of earlier runs that were not asked for."""
    record.run_parts(config, output, PARTS)


def arithmetic(config) -> list[dict]:
    """The quickstart's teacher on samples of its student."""
    return on_policy(config, "quickstart", **{"teacher.score_rule": "expected"})


def world(config) -> list[dict]:
    """The search quickstart's environment agent on conversations of its student."""
    return on_policy(config, "quickstart_search")


def on_policy(config, name: str, **changes) -> list[dict]:
    """A row for the student of `configs/NAME.py` before, halfway and after training."""
    options = flags.load_file(f"configs/{name}.py").copy_and_resolve_references()
    options.update_from_flattened_dict(changes)
    steps = options.num_steps
    students = {
        "untrained": options.model,
        "half as many steps": trained(config, name, steps // 2),
        "trained": trained(config, name, steps),
    }
    return [
        {"student": label, "threshold": options.threshold}
        | measured(config, options, student)
        for label, student in students.items()
    ]


def trained(config, name: str, steps: int) -> str:
    """The folder of a run of `configs/NAME.py` with so many steps."""
    folder = f"{config.run_dir}/{name}-{steps}"
    if not Path(folder, "export").exists():
        options = flags.load_file(f"configs/{name}.py").copy_and_resolve_references()
        options.update(
            {"run_dir": folder, "num_steps": steps, "eval_problems": 0, "loggers": ()}
        )
        train.main(options)
    return folder


def measured(config, options, student: str) -> dict:
    """The judge's measures on what `student` samples; see `evaluation.judge`."""
    return on_mesh(lambda of: on_samples(of, student, config.held_out))(options)


def on_samples(options, student: str, held_out: int) -> dict:
    """The same, on the devices' mesh."""
    teacher = make_teacher(options)
    tokenizer = load_tokenizer(find_model(student, "student"))
    problems = make_task(options, tokenizer).held_out(held_out)
    seed = derive(options.seed, "benchmark", "judge")
    samples = judged_samples(options, student, problems, teacher, seed=seed)
    return measures(samples, load_prompt(options.teacher.prompt).thresholds())


def slips(config) -> dict:
    """Both teachers on mistakes that were made up."""
    return {"arithmetic": audited(config, "slips"), "world": world_slips(config)}


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
    options.model = ""  # samples of students are in other parts
    options.update_from_flattened_dict(changes)
    evaluate.main(options)
    found = json.loads(Path(options.run_dir, "audit.json").read_text())
    found["data"] = ",".join(Path(name).name for name in found["data"].split(","))
    return found


def world_slips(config) -> dict:
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


PARTS = {
    "arithmetic": arithmetic,
    "world": world,
    "slips": slips,
    "processbench": processbench,
}

if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/judge.py")

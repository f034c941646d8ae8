"""Audits a teacher as a judge: how well its scores tell right steps from wrong ones.

It scores solutions whose wrong steps are known, and samples of the student. The report
recommends a threshold and says whether praise in a solution raises its score.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.evaluation.judge import measures as on_policy_measures
from ovd_jax.evaluation.judge_report import write_report
from ovd_jax.evaluation.judged import load_solutions
from ovd_jax.evaluation.known_steps import Judged, judge, measures, praise_lift
from ovd_jax.multihost.processes import on_main
from ovd_jax.seeds import derive
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.student_samples import judged_samples
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.teacher import make_teacher


def main(config: ConfigDict) -> None:
    """Audits the teacher of `config` and writes the report to `run_dir`."""
    started = time.time()
    solutions = load_solutions(
        config.data,
        None if config.data else make_task(config),
        count=config.eval_problems,
        seed=config.seed,
    )
    if not solutions:
        raise UserError(
            f"{config.data or 'eval_problems 0'} gives no solution to be judged."
        )
    teacher = make_teacher(config)
    prompt = load_prompt(config.teacher.prompt)
    try:
        judged = judge(teacher, solutions, seed=config.seed)
        names = prompt.thresholds()
        result = measures(judged, teacher.levels, names)
        if config.model and not config.data:
            held_out = make_task(config).held_out(config.eval_problems)
            seed = derive(config.seed, "audit", "samples")
            samples = judged_samples(config, config.model, held_out, teacher, seed=seed)
            result["on_policy"] = {
                "student": config.model,
                **on_policy_measures(samples, names),
            }
        if prompt.chat:
            result["praise_lift"] = praise_lift(teacher, judged, seed=config.seed)
        result |= teacher.metrics()
    finally:
        close(teacher)
    on_main(report, config, judged, result, time.time() - started)


def report(
    config: ConfigDict, judged: Sequence[Judged], result: dict, seconds: float
) -> None:
    """Writes the report, prints its tables and the summary line."""
    result = {
        "teacher": config.teacher.url or config.teacher.model,
        "data": config.data or config.task,
        **result,
        "seconds": round(seconds, 1),
    }
    write_report(Path(config.run_dir), judged, result)
    hidden = ("thresholds", "calibration")
    flags.summary(
        **{name: value for name, value in result.items() if name not in hidden},
        run_dir=str(config.run_dir),
    )

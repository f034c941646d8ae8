"""How good a judge is a teacher? Its scores against exact labels of held-out steps."""

import random
import time
from collections.abc import Sequence

from ovd_jax import build, flags, monitor
from ovd_jax.processes import on_mesh
from ovd_jax.progress import results_table
from ovd_jax.tasks import ArithmeticTask, make_task
from ovd_jax.tasks.corruption import judged_solution
from ovd_jax.tasks.demonstrations import joined, trajectory_score
from ovd_jax.teacher.accounting import auc
from ovd_jax.teacher.base import Score, ScoreRequest

RIGHT, WRONG = 7, 2  # a step is right from this exact score up, wrong up to that


@on_mesh
def main(config):
    """Scores held-out arithmetic solutions, some with slips, and prints the AUC."""
    started = time.time()
    monitor.enable_compilation_cache()
    if config.task != "arithmetic":
        raise ValueError("The judge is measured on the task arithmetic only so far.")
    with config.unlocked():
        config.teacher.score_rule = "expected"
    teacher = build.make_teacher(config)
    requests, exact = labelled_requests(make_task(config), config.eval_problems)
    scores = teacher.score(requests, seed=config.seed)
    rows = [
        summarize("steps", *select(requests, exact, scores, whole=False)),
        summarize("whole solutions", *select(requests, exact, scores, whole=True)),
    ]
    results_table(
        f"{config.teacher.model} as a judge, {config.eval_problems} held-out problems",
        ("of", "right", "wrong", "AUC", "mean of right", "mean of wrong", "exact"),
        [
            (r["of"], r["right"], r["wrong"], f"{r['auc']:.3f}",
             f"{r['mean_right']:.2f}", f"{r['mean_wrong']:.2f}", f"{r['exact']:.1%}")
            for r in rows
        ],
    )  # fmt: skip
    flags.summary(
        teacher=config.teacher.model,
        auc_steps=rows[0]["auc"],
        auc_solutions=rows[1]["auc"],
        rows=rows,
        seconds=round(time.time() - started, 1),
    )


def labelled_requests(task: ArithmeticTask, count: int):
    """(requests, exact scores) for every step and the whole of `count` solutions."""
    rng = random.Random("audit")
    requests, exact = [], []
    for problem in task.held_out(count):
        lines, scores = judged_solution(problem.question, rng)
        for index, score in enumerate(scores):
            before, step = joined(lines[:index]), joined(lines[index : index + 1])
            requests.append(ScoreRequest(problem.question, before, step, whole=False))
            exact.append(score)
        requests.append(ScoreRequest(problem.question, "", joined(lines), whole=True))
        exact.append(trajectory_score(lines, scores))
    return requests, exact


def select(requests, exact, scores, *, whole: bool):
    """Exact and given scores of the requests for wholes, or for steps."""
    picked = [i for i, request in enumerate(requests) if request.whole == whole]
    return [exact[i] for i in picked], [scores[i] for i in picked]


def summarize(of: str, exact: Sequence[int], scores: Sequence[Score]) -> dict:
    """AUC of the mean score, its means over right and wrong, and the share of likeliest
    scores that are exactly right."""
    pairs = list(zip(exact, scores, strict=True))
    right = [score.value for label, score in pairs if label >= RIGHT]
    wrong = [score.value for label, score in pairs if label <= WRONG]
    hits = [label == score.probs.index(max(score.probs)) for label, score in pairs]
    return {
        "of": of,
        "right": len(right),
        "wrong": len(wrong),
        "auc": auc(right, wrong),
        "mean_right": sum(right) / len(right),
        "mean_wrong": sum(wrong) / len(wrong),
        "exact": sum(hits) / len(hits),
    }

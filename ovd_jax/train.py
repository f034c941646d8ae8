"""On-policy Verbal Distillation: the training driver. Read it from `main` down."""

import dataclasses
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax import build, flags
from ovd_jax.curves import plot_run
from ovd_jax.evaluate import accuracy, evaluate
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.sharding import row_shards
from ovd_jax.learning.update import TrainState, optimizer
from ovd_jax.models import hf
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.lora import base, merge
from ovd_jax.monitor import Monitor, enable_compilation_cache
from ovd_jax.processes import FromMain, check_same, on_main, on_mesh, tell
from ovd_jax.progress import Progress, results_table
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.collect import Collector, Rules
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.rollout.pack import pack
from ovd_jax.run_dir import RunDir, check_origin, read_metrics
from ovd_jax.seeds import derive
from ovd_jax.tasks import make_task
from ovd_jax.teacher.base import DemonstrationRequest, TeacherError


@on_mesh
def main(config):
    """Trains as `config` says; run again, it goes on from its last checkpoint.

    With several processes all of them run every line: see `ovd_jax/processes.py`.
    """
    started = time.time()
    enable_compilation_cache()
    folder = build.find_model(config.model, "student")
    tokenizer = build.load_tokenizer(folder)
    task = FromMain(make_task(config, tokenizer), "rewards")
    teacher = build.make_teacher(config)
    sampler = build.student_sampler(config, folder, tokenizer, task)
    collector = Collector(
        task=task, teacher=teacher, tokenizer=tokenizer, rules=rules(config)
    )
    tx = make_optimizer(config)
    checkpoints = Checkpoints(config.run_dir, every=config.checkpoint_every)
    create = jax.jit(functools.partial(TrainState.create, tx=tx), donate_argnums=0)
    state = create(build.load_student(folder, config))
    origin = {"model": config.model, "fingerprint": fingerprint(folder)}
    tell(check_origin, config.run_dir, origin, resumed=checkpoints.exist)
    state = checkpoints.restore_latest(state)
    learner = make_learner(config, tx, reference(config, folder, state.model))
    start = int(state.step) // learner.steps_a_batch
    check_same("the step of the last checkpoint", start)
    run = on_main(RunDir, config.run_dir, start, config.loggers, config.to_dict())
    on_main(flags.save, config, config.run_dir)

    def held_out_accuracy(model):
        return measure(config, folder, tokenizer, task, model)

    monitor = Monitor()
    with run, on_main(Progress, config.num_steps, start) as bar:
        for step in range(start, config.num_steps):
            row = {}
            if step == 0 or (config.eval_every and step % config.eval_every == 0):
                with monitor.time("evaluate"):
                    row["eval_accuracy"] = held_out_accuracy(state.model)
            if step == 0:
                row["teacher_accuracy"] = teacher_accuracy(config, teacher, task)
            with monitor.time("collect"):
                buffer = collect(config, collector, sampler, state.model, step)
            with monitor.time("update"):
                batch, shape = to_batch(config, buffer)
                seed = derive(config.seed, "minibatches", step)
                state, metrics = learner.learn(
                    state, batch, packs=shape.at_once, seed=seed
                )
            row |= buffer.metrics() | metrics | teacher.metrics() | monitor.take()
            row |= rates(row)
            run.log(step, row)
            run.log_samples(step, buffer.rows())
            bar.update(step, row)
            checkpoints.save(state, unit=learner.steps_a_batch)
        final = held_out_accuracy(state.model)
        run.log(config.num_steps, {"eval_accuracy": final})
    checkpoints.save(state, force=True)
    checkpoints.close()
    export = Path(config.run_dir) / "export"
    dtype = jnp.dtype(config.export_dtype)
    hf.save(merge(state.model), export, dtype=dtype, source=folder)
    on_main(report, config, time.time() - started)


def rules(config) -> Rules:
    """The part of the config that is verbal rejection sampling's."""
    names = [field.name for field in dataclasses.fields(Rules)]
    return Rules(**{name: config[name] for name in names})


def make_optimizer(config):
    """The optimizer of `config`; its schedule ends with the run."""
    batches = config.minibatches * config.epochs
    return optimizer(**config.optimizer, total_steps=config.num_steps * batches)


def reference(config, folder, model):
    """The starting model, frozen; under the adapters of `model` it still is there."""
    if not config.kl_coef:
        return None
    return base(model) if config.lora.rank else build.load_model(folder, config)


def make_learner(config, tx, reference) -> Learner:
    """The learner of `config`."""
    if config.problems_per_step < config.minibatches:
        raise ValueError(
            f"{config.problems_per_step} problems a step cannot be cut into "
            f"{config.minibatches} minibatches; change one of the two."
        )
    return Learner(
        tx=tx,
        reference=reference,
        minibatches=config.minibatches,
        epochs=config.epochs,
        aggregation=config.aggregation,
        max_tokens=config.max_new_tokens,
        temperature=config.temperature or 1.0,
        chunk=config.chunk,
        remat=config.remat,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        kl_coef=config.kl_coef,
        entropy_coef=config.entropy_coef,
        importance_cap=config.importance_cap or None,
    )


def collect(config, collector, sampler, model, step) -> RolloutBuffer:
    """The rollouts of one step, with their advantages."""
    problems = collector.task.problems(step, config.problems_per_step)
    check_same(f"the problems of step {step}", problems)
    generate = functools.partial(sampler, model)
    seed = derive(config.seed, "collect", step)
    groups = collector.collect(problems, generate, seed=seed)
    taught = sum(bool(group.rollouts) for group in groups)
    if taught < config.minibatches:
        raise TeacherError(
            f"The teacher gave too few scores in step {step}: only {taught} of "
            f"{len(groups)} groups are left for {config.minibatches} minibatches. Set "
            "teacher.on_failure to wait; the same command goes on from the checkpoint."
        )
    levels = collector.teacher.levels
    advantages = [
        group_advantages(
            group,
            credit=config.credit,
            credit_weight=config.credit_weight,
            levels=levels,
            baseline=config.baseline,
            scale_by_std=config.scale_by_std,
        )
        for group in groups
    ]
    return RolloutBuffer(tuple(groups), advantages, levels)


def to_batch(config, buffer: RolloutBuffer):
    """The arrays of a rollout buffer, and their shape."""
    batch, shape = pack(
        buffer.groups,
        buffer.advantages,
        length_multiple=config.length_multiple,
        max_tokens=config.tokens_at_once,
        minibatches=config.minibatches,
        shards=row_shards(),
    )
    check_same("the shape of a batch", (shape, batch.tokens_KC.shape))
    return batch, shape


def measure(config, folder, tokenizer, task, model) -> float:
    """Held-out accuracy of the student."""
    sampler = build.student_sampler(
        config, folder, tokenizer, task, temperature=config.eval_temperature
    )
    results = evaluate(
        task.held_out(config.eval_problems),
        task=task,
        generate=functools.partial(sampler, model),
        tokenizer=tokenizer,
        samples=config.eval_samples,
        rows=config.eval_rows,
        seed=config.seed,
    )
    return accuracy(results)


def teacher_accuracy(config, teacher, task) -> float:
    """Held-out accuracy of the teacher's demonstrations, as the student gets them."""
    problems = task.held_out(config.eval_problems)
    requests = [DemonstrationRequest(problem.question, "") for problem in problems]
    texts = teacher.demonstrate(requests, seed=derive(config.seed, "teacher accuracy"))
    return float(np.mean(task.rewards(list(problems), [text or "" for text in texts])))


def rates(row) -> dict[str, float]:
    """Tokens sampled from the student a second of the whole step, evaluation apart, and
    the share of all of it that was spent waiting for the teacher."""
    seconds = row["seconds_collect"] + row["seconds_update"]
    sampled = row["completion_tokens"] * sum(row["score_histogram"])
    waited = row["seconds_teacher"] / (seconds + row.get("seconds_evaluate", 0.0))
    return {"tokens_per_s": sampled / seconds, "teacher_wait_share": waited}


def report(config, seconds: float) -> None:
    """Curves, the table of accuracies, and the summary line."""
    rows = read_metrics(config.run_dir)
    evaluations = [row["eval_accuracy"] for row in rows if "eval_accuracy" in row]
    teacher = rows[0]["teacher_accuracy"]
    plot_run(rows, Path(config.run_dir) / "curves.png", teacher_accuracy=teacher)
    results_table(
        f"Held-out accuracy, {config.eval_problems} problems",
        ("model", "accuracy"),
        [
            ("student before", f"{evaluations[0]:.1%}"),
            ("student after", f"{evaluations[-1]:.1%}"),
            ("teacher", f"{teacher:.1%}"),
        ],
    )
    flags.summary(
        accuracy_before=evaluations[0],
        accuracy_after=evaluations[-1],
        accuracy_teacher=teacher,
        seconds=round(seconds, 1),
        run_dir=str(config.run_dir),
    )

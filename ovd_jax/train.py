"""On-policy Verbal Distillation: the training driver. Read it from `main` down."""

import contextlib
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.cli import flags
from ovd_jax.conversation.collect import ConversationCollector, solve
from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.evaluation.attempts import Direct, evaluate
from ovd_jax.evaluation.conversing import Conversing
from ovd_jax.evaluation.measures import accuracy, grade_metrics
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.update import TrainState, optimizer
from ovd_jax.models import hf
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.lora import base, merge
from ovd_jax.multihost.processes import FromMain, check_same, on_main, tell
from ovd_jax.reporting.collapse import JudgeWatch, Watch, stop_if_collapsed
from ovd_jax.reporting.curves import plot_run
from ovd_jax.reporting.monitor import Monitor, enable_compilation_cache
from ovd_jax.reporting.progress import Progress, results_table
from ovd_jax.reporting.run_dir import RunDir, check_origin, first_date, read_metrics
from ovd_jax.rollout.collect import Collector
from ovd_jax.seeds import derive
from ovd_jax.teacher.base import DemonstrationRequest
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.training.batches import collect, to_batch
from ovd_jax.training.keeper import Keeper
from ovd_jax.training.methods import is_served, method_of, rules
from ovd_jax.training.prefetch import Ahead, Gate
from ovd_jax.wiring.combinations import check_ahead, check_training
from ovd_jax.wiring.env import asked_by, make_dialogue, make_env, make_pool
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.models import (
    dated,
    find_model,
    load_model,
    load_student,
    load_tokenizer,
)
from ovd_jax.wiring.run_identity import owns_run_dir
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.student import held_out_sampler, student_sampler
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.teacher import make_teacher, make_token_teacher


@on_mesh
@owns_run_dir(default="default")
def main(config):
    """Trains as `config` says; run again, it goes on from its last checkpoint.

    With several processes all of them run every line: see `multihost/processes.py`.
    """
    with contextlib.ExitStack() as opened:  # connections and threads, however it ends
        train(config, opened)


def train(config, opened: contextlib.ExitStack) -> None:
    """`main`, which closes what is `opened`."""
    started = time.time()
    check_training(config)
    asked, config = config, dated(config, tell(first_date, config.run_dir))
    check_ahead(config)
    enable_compilation_cache()
    folder = find_model(config.model, "student")
    most = config.max_prompt_tokens + longest(config)
    hf.read_config(folder).check_length(most, "max_prompt_tokens and an answer")
    checkpoints = Checkpoints(config.run_dir, every=config.checkpoint_every)
    origin = {"model": config.model, "fingerprint": fingerprint(folder)}
    tell(check_origin, config.run_dir, origin, resumed=checkpoints.exist)
    tokenizer = load_tokenizer(folder, config.date)
    task = make_task(config, tokenizer)
    env = make_env(config, task, tokenizer)
    task = FromMain(asked_by(env, task), "rewards", "grade")
    teacher, tokens = make_teachers(config, tokenizer)
    opened.callback(close, teacher, tokens)
    sampler, tester = make_samplers(config, folder, tokenizer, task)
    pool = make_pool(config, training=True)
    opened.callback(close, pool)
    dialogue = functools.partial(make_dialogue, config, env, tokenizer, pool)
    collector = make_collector(
        config, dialogue(training=True),
        task=task, teacher=teacher, tokenizer=tokenizer,
        template=load_prompt(config.teacher.prompt),
    )  # fmt: skip
    ahead = Ahead(
        functools.partial(collect, config, collector, sampler),
        batches=config.async_batches,
        folder=Path(config.run_dir) / "ahead",
    )
    tx = make_optimizer(config)
    create = jax.jit(functools.partial(TrainState.create, tx=tx), donate_argnums=0)
    state = create(load_student(folder, config))
    if config.reference_every:
        state = state.refreshed()
    state = checkpoints.restore_latest(state)
    reference = functools.partial(starting_model, config, folder, state.model)
    learner = make_learner(
        config, tx, method_of(config).learns(config, reference, tokens)
    )
    start = int(state.step) // learner.steps_a_batch
    check_same("the step of the last checkpoint", start)
    run = on_main(RunDir, config.run_dir, start, config.loggers, config.to_dict())
    checkpoints.before_save = run.sync
    checkpoints.save_beside = lambda steps, forced: ahead.save(
        steps // learner.steps_a_batch, ending=forced
    )
    on_main(flags.save, asked, config.run_dir)

    def held_out(model):
        return measure(config, tester, tokenizer, task, model, dialogue(training=False))

    monitor = Monitor()
    watch = Watch.of(**config.collapse, max_skipped=config.max_skipped)
    judge_watch = JudgeWatch()
    keeper = Keeper(checkpoints, start=start, total=config.num_steps)
    with run, on_main(Progress, config.num_steps, start) as bar, keeper:
        for step in range(start, config.num_steps):
            row = {}
            due = step % (config.eval_every or config.num_steps) == 0
            if config.eval_problems and due:
                with monitor.time("evaluate"):
                    row |= held_out(state.model)
            if config.eval_problems and step == 0 and teacher:
                row["teacher_accuracy"] = teacher_accuracy(
                    config, teacher, task, dialogue(training=False)
                )
            with monitor.time("collect"):
                (buffer, costs), taken = ahead.take(state.model, step)
                if step + 1 < config.num_steps:
                    ahead.begin(state.model, step + 1, sampler)
            with keeper.whole_step():
                with monitor.time("update"), sampler.lock:
                    batch, shape = to_batch(config, buffer, tokens)
                    if config.reference_every and step % config.reference_every == 0:
                        state = state.refreshed()
                    seed = derive(config.seed, "minibatches", step)
                    state, metrics = learner.learn(
                        state, batch, packs=shape.at_once, seed=seed
                    )
                row |= buffer.metrics() | metrics | costs | taken | monitor.take()
                row |= tokens.metrics() if is_served(tokens) else {}
                row |= rates(row) | {"learning_rate": tx.learning_rate(state)}
                run.log(step, row)
                run.log_samples(step, buffer.rows())
                bar.update(step, row)
                judge_watch.check(row)
                checkpoints.save(state, unit=learner.steps_a_batch)
                keeper.done(state)
            stop_if_collapsed(watch, row, checkpoints, state)
        if config.eval_problems:
            run.log(config.num_steps, held_out(state.model))
    checkpoints.save(state, force=True)
    checkpoints.close()
    export = Path(config.run_dir) / "export"
    dtype = jnp.dtype(config.export_dtype)
    hf.save(merge(state.model), export, dtype=dtype, source=folder)
    on_main(report, config, time.time() - started)


def make_teachers(config, tokenizer):
    """(who is asked for text, whose probabilities of tokens are compared): the latter a
    model in this process or `ServedTokens`. None where the method needs none."""
    method = method_of(config)
    tokens = make_token_teacher(config, tokenizer) if method.reads else None
    model = None if is_served(tokens) else tokens
    if not method.asks(config):
        return None, tokens
    judges = rules(config).granularity != "none"
    return make_teacher(config, model, judges=judges), tokens


def make_samplers(config, folder: Path, tokenizer, task) -> tuple[Gate, Gate]:
    """(of training, of held-out evaluation), which take turns on the devices."""
    sampler = Gate(student_sampler(config, folder, tokenizer, task))
    tester = held_out_sampler(config, folder, tokenizer, task)
    return sampler, sampler.beside(tester)


def make_collector(config, dialogue: Dialogue | None, **parts) -> Collector:
    """The collector of `config`; with a `dialogue`, of conversations."""
    if dialogue is None:
        return Collector(rules=rules(config), **parts)
    return ConversationCollector(dialogue=dialogue, rules=rules(config), **parts)


def make_optimizer(config):
    """The optimizer of `config`; its schedule ends with the run."""
    return optimizer(
        **config.optimizer,
        total_steps=config.num_steps,
        steps_a_batch=config.minibatches * config.epochs,
    )


def starting_model(config, folder, model):
    """The model as it was, frozen; under the adapters of `model` it still is there.
    None where the state has a reference of its own."""
    if config.reference_every:
        return None
    return base(model) if config.lora.rank else load_model(folder, config)


def make_learner(config, tx, fields: dict) -> Learner:
    """The learner of `config`, with what its method learns by."""
    return Learner(
        tx=tx,
        minibatches=config.minibatches,
        epochs=config.epochs,
        aggregation=config.aggregation,
        max_tokens=longest(config),
        chunk=config.chunk,
        remat=config.remat,
        **fields,
    )


def longest(config) -> int:
    """The most tokens of a trajectory."""
    turns = config.turns
    return turns.total_tokens if turns.searches else config.max_new_tokens


def measure(config, sampler, tokenizer, task, model, dialogue=None) -> dict[str, float]:
    """The student's held-out accuracy, the task's own metrics of its answers, and what
    its calls cost, all named "eval_...".

    While a thread collects the next batch, `sampler` must take turns with that of
    training: see `Gate.beside`.
    """
    alone = functools.partial(Conversing, dialogue=dialogue) if dialogue else Direct
    solver = alone(
        functools.partial(sampler.stream, model),
        tokenizer=tokenizer,
        rows=config.eval_rows,
        identity={},
        greedy=not config.eval_temperature,
    )
    results = evaluate(
        task.held_out(config.eval_problems),
        task=task,
        solver=solver,
        tokenizer=tokenizer,
        samples=config.eval_samples,
        seed=config.seed,
    )
    row = {"accuracy": accuracy(results)} | grade_metrics(results)
    row |= dialogue.metrics() if dialogue is not None else {}
    return {f"eval_{name}": value for name, value in row.items()}


def teacher_accuracy(config, teacher, task, dialogue=None) -> float:
    """Held-out accuracy of the teacher's demonstrations, as the student gets them."""
    problems = task.held_out(config.eval_problems)
    seed = derive(config.seed, "teacher accuracy")
    if dialogue is not None:
        texts = solve(teacher, dialogue, problems, seed=seed)
    else:
        requests = [DemonstrationRequest(problem.asked, "") for problem in problems]
        texts = teacher.demonstrate(requests, seed=seed)
    return float(np.mean(task.rewards(list(problems), [text or "" for text in texts])))


def rates(row) -> dict[str, float]:
    """Tokens sampled from the student a second of the whole step, evaluation apart, and
    the share of all of it that was spent waiting for the teacher."""
    seconds = row["seconds_collect"] + row["seconds_update"]
    sampled = row.get("completion_tokens", 0.0) * row["student_samples"]
    waits = ("seconds_teacher_waited", "seconds_token_teacher_waited")
    waited = sum(row.get(name, 0.0) for name in waits)
    whole = seconds + row.get("seconds_evaluate", 0.0)
    return {"tokens_per_s": sampled / seconds, "teacher_wait_share": waited / whole}


def report(config, seconds: float) -> None:
    """Curves, the table of accuracies, and the summary line; null where `eval_problems`
    is 0."""
    rows = read_metrics(config.run_dir)
    evaluations = [row["eval_accuracy"] for row in rows if "eval_accuracy" in row]
    before, after = (evaluations[0], evaluations[-1]) if evaluations else (None, None)
    teacher = next(
        (r["teacher_accuracy"] for r in rows if "teacher_accuracy" in r), None
    )
    plot_run(rows, Path(config.run_dir) / "curves.png", teacher_accuracy=teacher)
    table = {"student before": before, "student after": after, "teacher": teacher}
    results_table(
        f"Held-out accuracy, {config.eval_problems} problems",
        ("model", "accuracy"),
        [(who, f"{value:.1%}") for who, value in table.items() if value is not None],
    )
    flags.summary(
        accuracy_before=before,
        accuracy_after=after,
        accuracy_teacher=teacher,
        seconds=round(seconds, 1),
        run_dir=str(config.run_dir),
    )

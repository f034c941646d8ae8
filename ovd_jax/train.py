"""On-policy Verbal Distillation: the training driver. Read it from `main` down."""

import contextlib
import functools
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.learner import Learner
from ovd_jax.learning.update import TrainState
from ovd_jax.models import hf
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.lora import merge
from ovd_jax.multihost.processes import broadcast_result, check_same, on_main
from ovd_jax.multihost.shared import SharedTask, shared
from ovd_jax.reporting.collapse import CollapseDetector, JudgeWatch, stop_if_collapsed
from ovd_jax.reporting.curves import plot_run
from ovd_jax.reporting.monitor import Monitor, enable_compilation_cache
from ovd_jax.reporting.progress import Progress, results_table
from ovd_jax.reporting.run_dir import RunDir, check_origin, first_date, read_metrics
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.seeds import derive
from ovd_jax.training.batches import to_batch
from ovd_jax.training.keeper import Keeper
from ovd_jax.training.objectives import is_served
from ovd_jax.training.prefetch import DeviceLock
from ovd_jax.wiring.combinations import check_prefetch, check_training
from ovd_jax.wiring.env import asked_by, make_dialogue, make_env, make_pool
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.models import dated, find_model, load_student, load_tokenizer
from ovd_jax.wiring.run_identity import owns_run_dir
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.student import held_out_sampler, student_sampler
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.training import (
    longest,
    make_collector,
    make_held_out,
    make_learner,
    make_objective,
    make_optimizer,
    make_prefetcher,
    make_teachers,
)


@on_mesh
@owns_run_dir(default="default")
def main(config: ConfigDict) -> None:
    """Trains as `config` says; the same command resumes from the last checkpoint.

    With several processes all of them run every line: see `multihost/processes.py`.
    """
    started = time.time()
    with contextlib.ExitStack() as opened:  # closes connections and threads at the end
        training = Training(config, opened)
        state = training.run()
    export(training.config, training.folder, state)
    on_main(report, training.config, time.time() - started)


class Training:
    """The parts of a run, and the loop over its steps."""

    def __init__(self, config, opened: contextlib.ExitStack):
        check_training(config)
        self.given = config
        date = broadcast_result(first_date, config.run_dir)
        self.config = config = dated(config, date)
        check_prefetch(config)
        enable_compilation_cache()
        self.folder = find_model(config.model, "student")
        self.checkpoints = open_checkpoints(config, self.folder)
        tokenizer = load_tokenizer(self.folder, config.date)
        task = make_task(config, tokenizer)
        env = make_env(config, task, tokenizer)
        task = shared(SharedTask, asked_by(env, task))
        self.teacher, self.token_teacher = make_teachers(config, tokenizer)
        opened.callback(close, self.teacher, self.token_teacher)
        pool = make_pool(config, training=True)
        opened.callback(close, pool)
        self.device = DeviceLock()
        parts = config, self.folder, tokenizer, task
        self.sampler = self.device.sampler(student_sampler(*parts))
        dialogue = functools.partial(make_dialogue, config, env, tokenizer, pool)
        self.held_out = make_held_out(
            config, task=task, tokenizer=tokenizer,
            sampler=self.device.sampler(held_out_sampler(*parts)),
            make_dialogue=functools.partial(dialogue, training=False),
        )  # fmt: skip
        collector = make_collector(
            config, dialogue(training=True),
            task=task, teacher=self.teacher, tokenizer=tokenizer,
        )  # fmt: skip
        self.prefetcher = make_prefetcher(config, collector, self.sampler)
        self.tx = make_optimizer(config)

    def run(self) -> TrainState:
        """Algorithm 1, from the last checkpoint on: the state after the last step."""
        config, state = self.config, self.restored_state()
        learner = self.make_learner(state)
        start = int(state.step) // learner.steps_a_batch
        check_same("the step of the last checkpoint", start)
        self.monitor = Monitor()  # counts the compilations from here on
        detector = CollapseDetector.of(
            **config.collapse, max_skipped=config.max_skipped
        )
        keeper = Keeper(self.checkpoints, start=start, total=config.num_steps)
        with self.open_log(start, learner) as log, keeper:
            for step in range(start, config.num_steps):
                row = self.evaluate(state, step)
                rollouts, costs = self.collect(state, step)
                with keeper.whole_step():
                    state, metrics = self.update(learner, state, rollouts, step)
                    row |= rollouts.metrics() | costs | metrics
                    log.step(step, row, rollouts)
                    self.checkpoints.save(state, unit=learner.steps_a_batch)
                    keeper.done(state)
                stop_if_collapsed(detector, row, self.checkpoints, state)
            if config.eval_problems:
                log.metrics(config.num_steps, self.held_out.measure(state.model))
        self.checkpoints.save(state, force=True)
        self.checkpoints.close()
        return state

    def evaluate(self, state: TrainState, step: int) -> dict:
        """Held-out accuracy, if the step is due for it; the teacher's at step 0."""
        config = self.config
        if not config.eval_problems:
            return {}
        row = {}
        if step % (config.eval_every or config.num_steps) == 0:
            with self.monitor.time("evaluate"):
                row |= self.held_out.measure(state.model)
        if step == 0 and self.teacher:
            row["teacher_accuracy"] = self.held_out.teacher_accuracy(self.teacher)
        return row

    def collect(self, state: TrainState, step: int) -> tuple[RolloutBuffer, dict]:
        """Samples, scores, replaces and rewards: (rollouts with advantages, costs)."""
        with self.monitor.time("collect"):
            (rollouts, costs), waits = self.prefetcher.next(state.model, step)
            if step + 1 < self.config.num_steps:
                self.prefetcher.start(state.model, step + 1, self.sampler)
        return rollouts, costs | waits

    def update(
        self, learner: Learner, state: TrainState, rollouts: RolloutBuffer, step: int
    ) -> tuple[TrainState, dict]:
        """All optimizer steps on the rollouts of a step: (state, metrics)."""
        config, token_teacher = self.config, self.token_teacher
        with self.monitor.time("update"), self.device:
            batch, shape = to_batch(
                config, rollouts, token_teacher, pairs=learner.objective.pairs
            )
            if config.reference_every and step % config.reference_every == 0:
                state = state.refreshed()
            seed = derive(config.seed, "minibatches", step)
            state, metrics = learner.learn(
                state, batch, microbatch=shape.microbatch, seed=seed
            )
        metrics |= self.monitor.take()
        metrics |= token_teacher.metrics() if is_served(token_teacher) else {}
        return state, metrics | {"learning_rate": self.tx.learning_rate(state)}

    def restored_state(self) -> TrainState:
        """The state of the last checkpoint, or the one before the first step."""
        config = self.config
        create = functools.partial(TrainState.create, tx=self.tx)
        state = jax.jit(create, donate_argnums=0)(load_student(self.folder, config))
        if config.reference_every:
            state = state.refreshed()
        return self.checkpoints.restore_latest(state)

    def make_learner(self, state: TrainState) -> Learner:
        """The learner of the config's method."""
        objective = make_objective(
            self.config, self.folder, state.model, self.token_teacher
        )
        return make_learner(self.config, self.tx, objective)

    def open_log(self, start: int, learner: Learner) -> "Log":
        """Opens the run directory so that its next row is that of step `start`.

        What a resumed run needs is on the disk before any checkpoint.
        """
        config = self.config
        log = Log(config, start)
        self.checkpoints.before_save = log.run.sync
        self.checkpoints.save_beside = lambda steps, forced: self.prefetcher.save(
            steps // learner.steps_a_batch, ending=forced
        )
        on_main(flags.save, self.given, config.run_dir)
        return log


class Log:
    """Writes the metrics and samples of every step and shows them on the screen."""

    def __init__(self, config, start: int):
        self.run = on_main(
            RunDir, config.run_dir, start, config.loggers, config.to_dict()
        )
        self._progress = on_main(Progress, config.num_steps, start)
        self._judge = JudgeWatch()

    def step(self, step: int, row: dict, rollouts: RolloutBuffer) -> None:
        """Writes a finished step; adds its `rates` to the row."""
        row |= rates(row)
        self.run.log(step, row)
        self.run.log_samples(step, rollouts.rows())
        self._progress.update(step, row)
        self._judge.check(row)

    def metrics(self, step: int, row: dict) -> None:
        """Writes metrics without samples."""
        self.run.log(step, row)

    def __enter__(self) -> "Log":
        self.run.__enter__()
        self._progress.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._progress.__exit__(*error)
        self.run.__exit__(*error)


def open_checkpoints(config: ConfigDict, folder: Path) -> Checkpoints:
    """The checkpoints of a run that starts from the model in `folder`.

    Raises UserError if the model cannot read the longest trajectory, or if the run
    started from another one.
    """
    most = config.max_prompt_tokens + longest(config)
    hf.read_config(folder).check_length(most, "max_prompt_tokens and an answer")
    checkpoints = Checkpoints(config.run_dir, every=config.checkpoint_every)
    origin = {"model": config.model, "fingerprint": fingerprint(folder)}
    broadcast_result(check_origin, config.run_dir, origin, resumed=checkpoints.exist)
    return checkpoints


def export(config: ConfigDict, folder: Path, state: TrainState) -> None:
    """Writes the trained model as a Hugging Face folder, adapters merged."""
    path = Path(config.run_dir) / "export"
    dtype = jnp.dtype(config.export_dtype)
    hf.save(merge(state.model), path, dtype=dtype, source=folder)


def rates(row: Mapping) -> dict[str, float]:
    """The student's sampled tokens a second, evaluation aside, and the share of the
    step spent waiting for the teacher."""
    seconds = row["seconds_collect"] + row["seconds_update"]
    sampled = row.get("completion_tokens", 0.0) * row["student_samples"]
    waits = ("seconds_teacher_waited", "seconds_token_teacher_waited")
    waited = sum(row.get(name, 0.0) for name in waits)
    whole = seconds + row.get("seconds_evaluate", 0.0)
    return {"tokens_per_s": sampled / seconds, "teacher_wait_share": waited / whole}


def report(config: ConfigDict, seconds: float) -> None:
    """Plots curves and prints the table of accuracies and the summary line; accuracies
    are null if `eval_problems` is 0."""
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

"""Evaluation: the driver. Read it from `main` down; the parts are in evaluation/."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ovd_jax import audit
from ovd_jax.client.cache import DiskCache
from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.conversation.env import Env
from ovd_jax.errors import UserError
from ovd_jax.evaluation.attempts import Direct, Evaluated, Solver, evaluate
from ovd_jax.evaluation.conversing import Conversing
from ovd_jax.evaluation.rejection import (
    BlindCollector,
    BlindConversationCollector,
    RejectionAtTestTime,
    generator,
)
from ovd_jax.evaluation.report import report, totals
from ovd_jax.evaluation.served_student import ServedStudent
from ovd_jax.evaluation.sets import EvalSet
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.transformer import Transformer
from ovd_jax.multihost.processes import broadcast_result, on_main
from ovd_jax.multihost.shared import SharedCache, SharedTask, shared
from ovd_jax.own_code import code_digest, names_code
from ovd_jax.paths import cache_dir
from ovd_jax.reporting import monitor
from ovd_jax.reporting.progress import Progress
from ovd_jax.reporting.run_dir import first_date
from ovd_jax.sampling.completion import Stream
from ovd_jax.tasks.base import Task
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.text import Tokenizer
from ovd_jax.wiring import env, search
from ovd_jax.wiring import teacher as teachers
from ovd_jax.wiring.combinations import check_evaluation
from ovd_jax.wiring.mesh import on_mesh
from ovd_jax.wiring.models import (
    dated,
    find_model,
    load_model,
    load_tokenizer,
    stop_ids,
)
from ovd_jax.wiring.results import check_results
from ovd_jax.wiring.servers import once
from ovd_jax.wiring.student import served_student, student_sampler
from ovd_jax.wiring.task import eval_sets, make_task
from ovd_jax.wiring.training import say_what_is_accepted

_NO_SUMS = ("_p50", "_p99", "_share")  # ends of metrics that do not add up


@on_mesh
def main(config: ConfigDict) -> None:
    """Evaluates `config.model` on every set and writes the results to `run_dir`.

    Cached attempts are not repeated; weights and teacher are loaded only if some
    attempt is missing.
    """
    if config.test_threshold:
        say_what_is_accepted(config, config.test_threshold)
    with contextlib.ExitStack() as opened:  # connections and threads, however it ends
        run(config, opened)


def run(config: ConfigDict, opened: contextlib.ExitStack) -> None:
    """The body of `main`, which closes what is `opened`."""
    started = time.time()
    config = dated(config, broadcast_result(first_date, config.run_dir))
    monitor.enable_compilation_cache()
    check_evaluation(config)
    broadcast_result(check_results, config)
    if config.evaluate == "teacher":
        audit.main(config)
        return
    student = Student(config, opened)
    task = evaluation_task(config, student.tokenizer)
    student.env = env.make_env(config, task, student.tokenizer)
    task = shared(SharedTask, env.asked_by(student.env, task))
    cache = open_cache(config)
    make_pool = once(opened, env.make_pool, config, training=False)
    results: dict[str, list[Evaluated]] = {}
    for eval_set in eval_sets(config, task):
        results[eval_set.name] = evaluate(
            eval_set.problems,
            task=task,
            solver=make_solver(
                config, task, student, temperature(config, eval_set), make_pool
            ),
            tokenizer=student.tokenizer,
            samples=eval_set.samples,
            seed=config.seed,
            cache=cache,
            progress=functools.partial(on_main, Progress),
        )
    on_main(
        report,
        Path(config.run_dir),
        results,
        about=about(config),
        score_rule=config.test_score_rule,
        averaged=config.averaged_sets,
        seconds=time.time() - started,
        searches=student.searches(),
    )


def about(config: ConfigDict) -> dict[str, str | float]:
    """The settings of the results, as in `results.json`."""
    return {
        "model": config.model,
        "engine": config.engine or "sampler",
        "task": config.task,
        "threshold": config.test_threshold,
    }


def evaluation_task(config: ConfigDict, tokenizer: Tokenizer) -> Task:
    """The task; with named sets, `config.data` names them and nothing is trained on."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if config.eval_sets:
            config.data = config.held_out_data = ""
    make_search = functools.partial(search.make_search, config, training=False)
    return make_task(config, tokenizer, make_search)


def temperature(config: ConfigDict, eval_set: EvalSet) -> float:
    """The temperature of a set. Raises UserError for several equal attempts."""
    value = config.eval_temperature
    if eval_set.sampled:
        value = value or config.eval_sampled_temperature
    if eval_set.samples > 1 and not value and not config.test_threshold:
        raise UserError(
            f"{eval_set.samples} greedy samples of a problem are all the same; set "
            "eval_temperature, or eval_samples to 1."
        )
    return value


def open_cache(config: ConfigDict) -> Any:
    """The cache of attempts on disk; several processes share that of process 0."""
    if config.eval_cache == "none":
        return None
    folder = config.eval_cache or cache_dir() / "attempts"
    return shared(SharedCache, DiskCache(folder))


class Student:
    """The evaluated model; it is loaded when it is needed."""

    def __init__(self, config, opened: contextlib.ExitStack):
        self.config = config
        self.opened = opened
        self.folder = find_model(config.model, "student")
        self.tokenizer = load_tokenizer(self.folder, config.date)
        self.env: Env | None = None  # what its turns are answered by
        self.dialogues: list[Dialogue] = []

    def searches(self) -> dict[str, float]:
        """Counts and seconds of all calls in attempts that were not in the cache."""
        found = totals([dialogue.metrics() for dialogue in self.dialogues])
        return {k: v for k, v in found.items() if not k.endswith(_NO_SUMS)}

    @functools.cached_property
    def model(self) -> Transformer:
        """Its weights."""
        return load_model(self.folder, self.config)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of its weights and tokenizer."""
        return fingerprint(self.folder)

    def engine(self, task: Task, temperature: float) -> tuple[Stream, dict[str, Any]]:
        """(stream, identity): how to sample, and everything that decides the samples
        besides prompt and seed."""
        config = self.config
        settings = {
            "temperature": temperature,
            "top_k": config.top_k,
            "top_p": config.top_p,
            "max_new_tokens": config.max_new_tokens,
            "stop_strings": [*task.stop_strings, *config.stop_strings],
            "stop_ids": list(stop_ids(self.folder, self.tokenizer)),
        }
        if config.engine:
            served = self.served(tuple(task.stop_strings), temperature)
            return served.stream, settings | self.served_identity(served)
        sampler = student_sampler(
            config, self.folder, self.tokenizer, task, temperature=temperature
        )

        def stream(*args, **kwargs):
            return sampler.stream(self.model, *args, **kwargs)

        return stream, settings | {
            "engine": "sampler",
            "model": self.fingerprint,
            "dtype": config.compute_dtype,
        }

    @functools.cache  # noqa: B019 one student a program
    def served(
        self, stop_strings: tuple[str, ...], temperature: float
    ) -> ServedStudent:
        """The student at `config.engine`."""
        served = served_student(
            self.config, self.folder, self.tokenizer, stop_strings, temperature
        )
        self.opened.callback(served.close)
        return served

    def served_identity(self, served: ServedStudent) -> dict[str, str]:
        """The identity of the served model, by its weights if they are on this
        machine."""
        name, weights = served.model
        if (Path(weights) / "config.json").is_file():
            weights = fingerprint(Path(weights))
        return {"engine": "served", "model": name, "weights": weights}


def make_solver(
    config: ConfigDict,
    task: Task,
    student: Student,
    temperature: float,
    make_pool: Callable,
) -> Solver:
    """The student, alone or in an environment, and with or without a teacher that
    rejects steps."""
    stream, identity = student.engine(task, temperature)
    shared = {"tokenizer": student.tokenizer, "rows": config.eval_rows}
    collector = BlindCollector
    alone: Callable = Direct
    if config.turns.max_observations:
        dialogue = env.make_dialogue(
            config, student.env, student.tokenizer, make_pool(),
            training=False, generate=generator(stream),
        )  # fmt: skip
        assert dialogue is not None  # turns have an environment
        student.dialogues.append(dialogue)
        collector = functools.partial(BlindConversationCollector, dialogue=dialogue)
        alone = functools.partial(Conversing, dialogue=dialogue)
        identity |= env.env_identity(config, make_pool())
    if not config.test_threshold:
        return alone(stream, identity=identity, greedy=not temperature, **shared)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.teacher.score_rule = config.test_score_rule
    make_teacher = once(student.opened, teachers.make_teacher, config)
    return RejectionAtTestTime(
        stream,
        task=task,
        make_teacher=make_teacher,
        threshold=load_prompt(config.teacher.prompt).level_of(config.test_threshold),
        max_replaced_steps=config.test_replaced_steps,
        max_new_tokens=config.max_new_tokens,
        identity=identity | rejection_identity(config, make_teacher),
        make_collector=collector,
        **shared,
    )


def rejection_identity(config: ConfigDict, make_teacher: Callable) -> dict[str, Any]:
    """What decides an attempt that a teacher checks, besides the student."""
    options = config.teacher
    if names_code(options.model):
        teacher = code_digest(options.model)
    elif options.url:
        teacher = make_teacher().name
    else:
        teacher = fingerprint(find_model(options.model, "teacher"))
    names = ("score_rule", "score_temperature", "temperature")
    return {
        "teacher": teacher,
        "draws": "by request",  # attempts of earlier versions drew by their places
        "teacher_prompt": dataclasses.asdict(load_prompt(options.prompt)),
        "teacher_settings": {name: options[name] for name in names},
        "step_rule": config.step_rule,
        "teacher_max_new_tokens": options.max_new_tokens,
        "threshold": config.test_threshold,
        "max_replaced_steps": config.test_replaced_steps,
    }

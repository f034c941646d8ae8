"""Objects made of a config in which every knob has a value of its own."""

import functools
import types

import pytest
from search_fakes import TOKENIZER
from teacher_server import TeacherServer
from wired import VALUES, StackOf, config_of, learner_of, objective_options

from ovd_jax import evaluate
from ovd_jax.reporting.collapse import CollapseDetector
from ovd_jax.training import methods
from ovd_jax.wiring.env import make_dialogue, make_env, make_pool
from ovd_jax.wiring.models import find_model, load_tokenizer
from ovd_jax.wiring.search import make_search
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.student import held_out_sampler, student_sampler
from ovd_jax.wiring.task import make_task
from ovd_jax.wiring.teacher import make_teacher


@pytest.fixture(scope="module")
def server():
    with TeacherServer(write=lambda text, seed: "Doc 1(Title: t) x") as server:
        yield server


@pytest.fixture(scope="module")
def made(server):
    """`made(name)`: an object of the table, built once."""
    opened = []

    def keep(thing):
        opened.append(thing)
        return thing

    folder = find_model("quickstart", "student")
    tokenizer = load_tokenizer(folder)
    plain = types.SimpleNamespace(stop_strings=())

    def config(**changes):
        return config_of(**{"eval_temperature": 0.51} | changes)

    def served(**changes):
        return config(**{"teacher.url": server.url} | changes)

    def search(**changes):
        return keep(make_search(config(**changes), training=True))

    def task(name, **changes):
        made = config(task=name, data="", held_out_data="", **changes)
        return make_task(made, TOKENIZER, lambda: None)

    def dialogue():
        made = config(**{"search.backend": "none"})
        pool = keep(make_pool(made, training=True))
        env = make_env(made, None, TOKENIZER)
        return make_dialogue(made, env, TOKENIZER, pool, training=True)

    def solver(threshold):
        made = served(
            **{
                "test_threshold": threshold,
                "turns.max_observations": 0,
                "engine": server.url,
            }
        )
        student = evaluate.Student(made, StackOf(opened))
        return evaluate.make_solver(made, plain, student, 0.5, lambda: None)

    makers = {
        "student_sampler": lambda: student_sampler(config(), folder, tokenizer, plain),
        "held_out_sampler": lambda: held_out_sampler(
            config(), folder, tokenizer, plain
        ),
        "rules": lambda: methods.rules(config()),
        "learner": lambda: learner_of(config(**{"turns.max_observations": 0})),
        "objective": lambda: objective_options(config()),
        "token_kd": lambda: methods.METHODS["token_kd"].objective(
            config(), lambda: None, None
        ),
        "dpo_pairs": lambda: methods.METHODS["dpo_pairs"].objective(
            config(), lambda: None, None
        ),
        "dialogue": dialogue,
        "arithmetic": lambda: task("arithmetic"),
        "math": lambda: task("math"),
        "qa": lambda: task("qa"),
        "served_teacher": lambda: keep(make_teacher(served())),
        "local_teacher": lambda: make_teacher(config(**{"teacher.prompt": "embedded"})),
        "http": lambda: search(
            **{"search.backend": "http", "search.url": server.url + "/retrieve"}
        ),
        "served_simulator": lambda: search(
            **{"search.backend": "simulated", "search.url": server.url}
        ),
        "local_simulator": lambda: search(**{"search.backend": "simulated"}),
        "watch": lambda: CollapseDetector.of(
            **config().collapse, max_skipped=config().max_skipped
        ),
        "rejecting": lambda: solver(VALUES["test_threshold"]),
        "direct": lambda: solver(0),
    }
    yield functools.cache(lambda name: makers[name]())
    close(*opened)

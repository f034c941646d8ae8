"""No gold answer reaches the engine of a run's held-out evaluation, however it is
asked; that of the training does. And each samples at its own temperature."""

import contextlib

import pytest
from search_fakes import problem
from teacher_server import TeacherServer

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.conversation.env import Call, Conversation

PROBLEMS = [
    problem("Who wrote it?", "Ada-gold", "Byron-gold"),
    problem("Where is it?", "Zanzibar-gold"),
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """`asked[part]`: the text of all that the engine is asked by the tools that the run
    makes for `part`, which are given whole problems."""
    config = flags.load_file("configs/quickstart_search.py")
    told = {}
    with (
        TeacherServer(write=lambda text, seed: "Doc 1(Title: t) x") as engine,
        contextlib.ExitStack() as opened,
        config.unlocked(),
    ):
        config.run_dir = str(tmp_path_factory.mktemp("run"))
        config.search.url, config.search.prompt = engine.url, "plain"
        config.temperature, config.eval_temperature = 0.75, 0.25
        run = train.Training(config, opened)
        samplers = {"training": run.sampler, "held out": run.held_out.sampler}
        parts = run.prefetcher._collect.args
        (collector,) = (part for part in parts if hasattr(part, "dialogue"))
        for part, tools in {
            "training": collector.dialogue.tools,
            "held out": run.held_out.make_dialogue().tools,
        }.items():
            before = len(engine.bodies)
            tools.start([
                ((n,), Call("a query"), Conversation(each, ("t",), (), seed=n))
                for n, each in enumerate(PROBLEMS)
            ])  # fmt: skip
            tools.take([(n,) for n in range(len(PROBLEMS))])
            told[part] = str(engine.bodies[before:])
        told["temperatures"] = {x: y._sampler.temperature for x, y in samplers.items()}
    return told


def test_golds_and_questions_reach_the_engine_in_training(asked):
    for each in PROBLEMS:
        assert each.question in asked["training"]
        assert each.answer in asked["training"]


def test_none_reaches_it_in_held_out_evaluation(asked):
    assert "a query" in asked["held out"]
    for each in PROBLEMS:
        assert not any(x in asked["held out"] for x in (each.question, *each.golds))


def test_each_part_of_a_run_is_sampled_at_its_own_temperature(asked):
    assert asked["temperatures"] == {"training": 0.75, "held out": 0.25}

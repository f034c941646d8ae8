"""From `config.env` to an environment, what it needs of a run, and what is refused."""

import pytest
from search_fakes import TOKENIZER

from ovd_jax.cli import flags
from ovd_jax.conversation.calculator import Calculator
from ovd_jax.conversation.search import SearchEnv
from ovd_jax.errors import UserError
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.wiring.combinations import check_evaluation, check_training
from ovd_jax.wiring.env import (
    asked_by,
    env_identity,
    make_dialogue,
    make_env,
    make_pool,
    turn_ends,
)

OWN = """
class Own:
    turn_ends = ("!", "</t>")
    observation_tags = ("[", "]")

    def __init__(self, config, task, tokenizer):
        self.made_of = (config, task, tokenizer)

    def reset(self, problem):
        return problem.question + "?"

    def step(self, text): ...

class NoStep:
    turn_ends = ("!",)
    observation_tags = ("[", "]")

    def reset(self, problem): ...

class Text(Own):
    turn_ends = "!"

number = 7
"""
CONVERSES = {
    "turns.max_observations": 3, "method": "grpo", "turns.total_tokens": 90,
    "turns.observation_tokens": 50,
}  # fmt: skip


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py:"


def config_of(**changes):
    config = flags.load_file("configs/default.py")
    config.update_from_flattened_dict(CONVERSES | changes)
    return config


def test_an_environment_is_the_one_that_the_knob_names(own):
    task = ArithmeticTask()
    for name, kind in (("search", SearchEnv), ("calculator", Calculator)):
        assert isinstance(make_env(config_of(env=name), task, TOKENIZER), kind)
    config = config_of(env=own + "Own")
    made = make_env(config, task, TOKENIZER)
    assert made.made_of == (config, task, TOKENIZER)
    asked = asked_by(made, task)
    (problem,) = task.problems(0, 1)
    assert asked.prompt(problem) == problem.question + "?"
    assert asked.stop_strings == turn_ends(config) == ("!", "</t>")
    assert asked.rewards([problem], ["#### " + problem.answer]) == [1.0]
    assert make_dialogue(config, made, TOKENIZER, make_pool(config, training=True),
                         training=True).env is made  # fmt: skip


def test_where_solutions_have_a_single_turn_there_is_no_environment():
    config = config_of(**{"turns.max_observations": 0})
    task = ArithmeticTask()
    assert make_env(config, task, TOKENIZER) is None
    assert asked_by(None, task) is task
    assert make_pool(config, training=True) is None
    assert make_dialogue(config, None, TOKENIZER, None, training=True) is None
    assert turn_ends(config) == ()


def test_attempts_in_an_environment_of_ones_own_are_of_its_text(tmp_path, own):
    config = config_of(env=own + "Own")
    first = env_identity(config, None)
    assert first == env_identity(config, None)
    (tmp_path / "own.py").write_text(OWN + "\n")
    assert env_identity(config, None) != first
    assert env_identity(config_of(env="calculator"), None)["env"] == "calculator"


@pytest.mark.parametrize("check", [check_training, check_evaluation])
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"env": "FILE:missing"}, "env is"),
        ({"env": "FILE:number"}, "cannot be called"),
        ({"env": "FILE:NoStep"}, "needs step to be a Env"),
        ({"env": "FILE:Text"}, "turn_ends is '!'; it must be a tuple"),
        (
            {"env": "calculator", "turns.max_observations": 0},
            "turns.max_observations is 0",
        ),
        ({"env": "FILE:Own", "method": "seq_kd"}, "written in a single turn"),
        ({"env": "search"}, "or env to another than search"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_loaded(
    knobs, said, check, own
):
    file = own.rstrip(":")
    values = {k: v.replace("FILE", file) if k == "env" else v for k, v in knobs.items()}
    with pytest.raises(UserError, match=said):
        check(config_of(**values))


@pytest.mark.parametrize("env", ["calculator", "FILE:Own"])
def test_every_task_may_have_an_environment(env, own):
    check_training(config_of(env=env.replace("FILE:", own)))

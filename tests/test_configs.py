"""Every shipped config loads, and its update can be traced without any weights."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from fakes import group, kept, trajectory

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.learning.learner import cut
from ovd_jax.learning.update import (
    TrainState,
    add_gradients,
    apply_gradients,
    optimizer,
    policy_objective,
    zero_gradients,
)
from ovd_jax.models import hf
from ovd_jax.models.known import KNOWN
from ovd_jax.models.transformer import Transformer
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.toy.tokenizers import FOLDER
from ovd_jax.training.batches import to_batch
from ovd_jax.training.methods import rules
from ovd_jax.wiring import training

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
OTHER = {
    "sft", "quickstart_student", "quickstart_teacher", "export", "serve_search",
    "simulator_data", "simulator_sft", "world_agent", "world_student", "compare",
    "compare_quickstart", "compare_smollm2", "compare_webqa", "compare_math",
}  # fmt: skip
TRAINING = [p.stem for p in CONFIGS if p.stem not in OTHER | {"__init__"}]
NAMES = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def load(name: str):
    return flags.load_file(f"configs/{name}.py")


def longest_batch(config):
    """Two groups of the longest trajectories that `config` allows."""
    longest = kept(trajectory(training.longest(config)), 0.0)
    completions = [longest] * config.samples
    groups = [group(*completions, prompt=range(config.max_prompt_tokens))] * 2
    buffer = RolloutBuffer(tuple(groups), [[[0.0]] * config.samples] * 2, levels=10)
    return to_batch(config, buffer)


def shapes(tree) -> list:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_opens_with_the_command_that_runs_it(path: Path):
    if path.stem not in {"__init__"}:
        assert "python launch/" in path.read_text().split('"""')[1]
        assert load(path.stem).is_locked


@pytest.mark.parametrize("name", TRAINING)
def test_the_update_of_every_training_config_can_be_traced_without_weights(name):
    config = load(name)
    rules(config)
    embedded = {"quickstart": "student", "world": "world_student"}
    if config.model in embedded:
        architecture = hf.read_config(FOLDER / embedded[config.model])
    else:
        architecture = KNOWN[NAMES.get(config.model, config.model)]
    tx = optimizer(**config.optimizer, total_steps=config.num_steps)
    dtype = jnp.dtype(config.compute_dtype)
    state = jax.eval_shape(
        lambda: TrainState.create(
            Transformer(architecture, jax.random.key(0), dtype), tx
        )
    )
    batch, shape = longest_batch(config)
    batch = batch.replace(ref_logprobs_BY=batch.sampler_logprobs_BY)
    objective = functools.partial(
        policy_objective, temperature=config.temperature, chunk=config.chunk,
        remat=config.remat, clip_low=config.clip_low, clip_high=config.clip_high,
        kl_coef=config.kl_coef, entropy_coef=config.entropy_coef,
    )  # fmt: skip
    add = functools.partial(add_gradients, objective)
    grads = jax.eval_shape(zero_gradients, state.model)
    part = next(cut(batch, shape.microbatch))
    grads, sums = jax.eval_shape(add, state.model, grads, part)
    after, _ = jax.eval_shape(functools.partial(apply_gradients, tx=tx), state, grads)
    assert shapes(after) == shapes(state)
    assert sums["loss"].shape == ()


def test_the_maths_config_is_that_of_the_papers_appendix():
    config = load("math")
    assert (config.problems_per_step, config.samples, config.temperature) == (
        128,
        8,
        0.6,
    )
    assert (config.max_prompt_tokens, config.max_new_tokens) == (1024, 3072)
    assert config.optimizer.learning_rate == 1e-6
    assert config.optimizer.schedule == "constant"
    assert (config.clip_low, config.clip_high) == (0.2, 0.2)
    assert (config.kl_coef, config.threshold) == (0.001, 7)
    assert config.teacher.score_temperature == 0.7


SERVED = ("math", "math_one_example", "math_two_examples", "eval_math", "webqa")
SERVED += ("eval_qa", "compare_math", "compare_webqa")


@pytest.mark.parametrize("name", SERVED)
def test_a_large_teacher_is_asked_on_a_server_and_never_loaded_here(name):
    url, config = "http://127.0.0.1:8000/v1", load(name)
    for base in (config.get("base"), config.get("eval_base")):
        if base:
            assert flags.load_file(base).teacher.url == url
    if not config.get("base"):
        assert config.teacher.url == url
        assert config.teacher.prompt in ("digits", "turns")


def test_rlvr_is_the_maths_config_without_a_teacher():
    differing = {
        knob
        for knob, value in flags.knobs(load("rlvr")).items()
        if value != flags.knobs(load("math"))[knob]
    }
    assert differing == {"method", "run_dir"}


@pytest.mark.parametrize(("name", "count"), [("one_example", 1), ("two_examples", 2)])
def test_the_example_configs_train_on_the_papers_problems(name, count):
    from ovd_jax.tasks.data.rows import load_problems

    problems = load_problems(load(f"math_{name}").data, "train")
    assert [p.answer for p in problems] == ["124", r"\frac{2\sqrt{462}}{5}"][:count]


def test_the_search_config_is_that_of_the_papers_appendix():
    config = load("webqa")
    assert (config.num_steps, config.problems_per_step, config.samples) == (203, 64, 5)
    assert (config.model, config.threshold) == ("Qwen/Qwen2.5-3B", 7)
    assert (config.optimizer.learning_rate, config.kl_coef) == (1e-6, 0.001)
    assert config.problems_per_step // config.minibatches == 32
    assert (config.max_new_tokens, config.turns.max_observations) == (500, 5)
    assert config.qa.reward == "f1"


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("webqa", 0.95 * 203),
        ("webqa_search_r1", 0.285 * 1005),
        ("webqa_zerosearch", 0.95 * 203),
        ("quickstart", 10 / 8),  # ten optimizer steps
        ("quickstart_search", 4),
        ("math", 0),
    ],
)
@pytest.mark.parametrize("cut", [{}, {"minibatches": 5}, {"epochs": 3}])
def test_the_warm_up_ends_after_the_rollout_batches_that_a_config_says(
    name, batches, cut
):
    """However many optimizer steps a batch is cut into."""
    config = load(name)
    config.update(cut)
    steps_a_batch = config.minibatches * config.epochs
    schedule = training.make_optimizer(config).schedule
    rates = [float(schedule(n)) for n in range(2 + int(batches + 1) * steps_a_batch)]
    full = rates.index(max(rates)) + 1  # optimizer steps until the rate is full
    assert max(rates) == pytest.approx(config.optimizer.learning_rate)
    assert full / steps_a_batch == pytest.approx(max(batches, 1 / steps_a_batch), abs=1)
    assert abs(full - config.optimizer.warmup_steps * steps_a_batch) <= 1


@pytest.mark.parametrize(
    ("name", "engine", "reward", "searches"),
    [
        ("zerosearch", "simulated", "f1", 5),
        ("search_r1", "http", "em", 2),
        ("r1", "none", "em", 0),
    ],
)
def test_the_trained_baselines_of_table_3_reject_nothing(
    name, engine, reward, searches
):
    config = load(f"webqa_{name}")
    assert (config.threshold, config.search.backend) == (0, engine)
    assert (config.qa.reward, config.turns.max_observations) == (reward, searches)
    assert rules(config).granularity == "none"

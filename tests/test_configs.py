"""Every shipped config loads, and its update can be traced without any weights."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ovd_jax import flags, train
from ovd_jax.learning.losses import Batch
from ovd_jax.learning.update import TrainState, optimizer, update
from ovd_jax.models import hf
from ovd_jax.models.embedded import FOLDER
from ovd_jax.models.known import KNOWN
from ovd_jax.models.transformer import Transformer

CONFIGS = sorted((flags.ROOT / "configs").glob("*.py"))
SFT = {"sft", "quickstart_student", "quickstart_teacher"}
TRAINING = [p.stem for p in CONFIGS if p.stem not in SFT | {"__init__"}]
NAMES = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def load(name: str):
    return flags.load_file(f"configs/{name}.py")


def abstract_batch(rows: int, tokens: int) -> Batch:
    kinds = {
        "tokens_BT": jnp.int32,
        "completion_mask_BT": bool,
        "teacher_mask_BT": bool,
    }
    return Batch(
        **{
            field.name: jax.ShapeDtypeStruct(
                (rows, tokens), kinds.get(field.name, jnp.float32)
            )
            for field in dataclasses.fields(Batch)
        }
    )


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
    train.rules(config)
    if config.model == "quickstart":
        architecture = hf.read_config(FOLDER / "student")
    else:
        architecture = KNOWN[NAMES.get(config.model, config.model)]
    tx = optimizer(**config.optimizer, total_steps=config.num_steps)
    dtype = jnp.dtype(config.compute_dtype)
    state = jax.eval_shape(
        lambda: TrainState.create(
            Transformer(architecture, jax.random.key(0), dtype), tx
        )
    )
    rows = config.problems_per_step * config.samples // config.minibatches
    batch = abstract_batch(rows, config.max_prompt_tokens + config.max_new_tokens)
    step = functools.partial(
        update, tx=tx, micro_batches=config.micro_batches,
        aggregation=config.aggregation, max_tokens=config.max_new_tokens,
        temperature=config.temperature, chunk=config.chunk, remat=config.remat,
        clip_low=config.clip_low, clip_high=config.clip_high, kl_coef=config.kl_coef,
    )  # fmt: skip
    after, metrics = jax.eval_shape(step, state, batch)
    assert shapes(after) == shapes(state)
    assert metrics["loss"].shape == ()


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


def test_rlvr_is_the_maths_config_with_threshold_zero():
    differing = {
        knob
        for knob, value in flags.knobs(load("rlvr")).items()
        if value != flags.knobs(load("math"))[knob]
    }
    assert differing == {"threshold", "run_dir"}


@pytest.mark.parametrize(("name", "count"), [("one_example", 1), ("two_examples", 2)])
def test_the_example_configs_train_on_the_papers_problems(name, count):
    from ovd_jax.tasks.rows import load_problems

    problems = load_problems(load(f"math_{name}").data, "train")
    assert [p.answer for p in problems] == ["124", r"\frac{2\sqrt{462}}{5}"][:count]

"""Runs with adapters: resumed, exported, refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import optax
import pytest
from adapters import (
    LORA,
    TOKENS_BT,
    TX,
    WEIGHTS_BT,
    adapted_to,
    assert_close,
    assert_same,
    forward,
    objective,
    size,
)

from ovd_jax import export, sft, train
from ovd_jax.cli import flags
from ovd_jax.learning.checkpoint import Checkpoints, by_path
from ovd_jax.learning.update import (
    Stepper,
    TrainState,
)
from ovd_jax.models import hf
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.lora import adapt, merge
from ovd_jax.reporting.run_dir import check_origin, read_metrics
from ovd_jax.toy.tokenizers import FOLDER, arithmetic_tokenizer


def run_steps(state, steps):
    """`steps` of training; step t has a batch of its own."""
    run = Stepper(objective, TX)
    for step in steps:
        tokens_BT = (TOKENS_BT + step) % 26
        state, _ = run(state, [(tokens_BT, WEIGHTS_BT, None)])
    return state


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(model, tmp_path):
    """The new process draws other adapters, and takes the saved ones."""
    create = functools.partial(TrainState.create, tx=TX)
    unbroken = run_steps(create(adapted_to(model)), range(4))
    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.save(run_steps(create(adapted_to(model)), range(2)), force=True)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, every=1)
    state = checkpoints.restore_latest(create(adapted_to(model, seed=1)))
    checkpoints.close()
    resumed = run_steps(state, range(2, 4))
    assert_same(resumed, unbroken)
    kept = {name.removesuffix(".value").split(".")[-1] for name in by_path(resumed)}
    assert {"lora_a", "lora_b"} < kept
    assert not kept & {"kernel", "bias", "embedding", "scale", "head"}


@pytest.mark.parametrize(
    ("saved", "asked"), [(0, 3), (3, 0), (3, 2)], ids=["full", "adapters", "rank"]
)
def test_checkpoints_of_other_adapters_are_refused(saved, asked, model, tmp_path):
    def state(rank):
        lora = dataclasses.replace(LORA, rank=rank)
        return TrainState.create(adapt(model, lora, jax.random.key(0)), TX)

    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.save(state(saved), force=True)
    checkpoints.manager.wait_until_finished()
    with pytest.raises(ValueError, match="does not fit this config"):
        checkpoints.restore_latest(state(asked))
    checkpoints.close()


@pytest.mark.slow
def test_transformers_computes_what_the_adapted_model_does(
    config, make_model, tmp_path, capsys
):
    """From the run's last checkpoint, and the folder that it started from."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = arithmetic_tokenizer()
    model = make_model(dataclasses.replace(config, vocab_size=len(tokenizer)))
    hf.save(model, tmp_path / "model", tokenizer)
    adapted = adapted_to(model)
    settings = flags.load_file("configs/sft.py").copy_and_resolve_references()
    settings.model, settings.lora.rank = str(tmp_path / "model"), 3
    settings.lora.alpha = 6.0
    flags.save(settings, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run", every=1)
    checkpoints.save(TrainState.create(adapted, TX), force=True)
    checkpoints.close()
    origin = {"model": settings.model, "fingerprint": fingerprint(settings.model)}
    check_origin(tmp_path / "run", origin, resumed=False)
    hf.save(merge(adapted), tmp_path / "run" / "export", source=tmp_path / "model")
    options = flags.load_file("configs/export.py").copy_and_resolve_references()
    options.model, options.output = str(tmp_path / "run"), str(tmp_path / "out")
    options.dtype = "float32"
    export.main(options)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        theirs_BTV = theirs(torch.tensor(TOKENS_BT, dtype=torch.long)).logits.numpy()
    assert_close(theirs_BTV, forward(adapted, TOKENS_BT), 1e-4)
    hf.save(make_model(model.config, seed=1), tmp_path / "model", tokenizer)
    with pytest.raises(ValueError, match=r"with other weights than .*model has now"):
        export.main(options)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"] == size(
        model
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": -1}, r"lora\.rank -1 is negative"),
        ({"targets": ("q", "query")}, "'query' is not one of q, k, v, o, gate, up, do"),
        ({"targets": ()}, "targets is empty; name some of q, k"),
    ],
)
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LORA, **changes)


def test_a_model_that_starts_from_nothing_is_not_adapted():
    config = flags.load_file("configs/sft.py").copy_and_resolve_references()
    config.lora.rank = 4
    with pytest.raises(ValueError, match=r"starts from nothing.* config\.lora\.rank=0"):
        sft.source_of(config)


def quickstart(run_dir, **knobs):
    config = flags.load_file("configs/quickstart.py").copy_and_resolve_references()
    config.lora.rank, config.optimizer.schedule = 4, "constant"
    config.problems_per_step = config.eval_problems = 8
    config.update(dict(run_dir=str(run_dir), loggers=(), checkpoint_every=1) | knobs)
    return config


@pytest.mark.slow
def test_a_run_trains_adapters_and_its_continuation_equals_it(tmp_path, capsys):
    train.main(quickstart(tmp_path / "whole", num_steps=3))
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"accuracy_before", "accuracy_after", "seconds"} <= summary.keys()
    rows = read_metrics(tmp_path / "whole")
    assert len(rows) == 4
    assert all(row["grad_norm"] > 0 and row["skipped_steps"] == 0 for row in rows[:3])
    assert rows[0]["kl"] < rows[2]["kl"]
    for steps in (2, 3):
        train.main(quickstart(tmp_path / "broken", num_steps=steps))
    exports = [tmp_path / name / "export" for name in ("whole", "broken")]
    whole, broken = (path / "model.safetensors" for path in exports)
    assert whole.read_bytes() == broken.read_bytes()
    start, end = hf.load(FOLDER / "student"), hf.load(exports[0])
    assert_same(end.embed, start.embed)
    change = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), end.layers, start.layers)
    assert change.q.kernel[...] > 1e-5
    assert optax.tree.norm(change.attention_norm) == 0

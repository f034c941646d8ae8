"""What is exported is what was trained: weights, tokenizer, template, stop tokens."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf_files import hf_tensors, write_gguf

from ovd_jax import export, sft
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.update import TrainState, optimizer
from ovd_jax.models import hf
from ovd_jax.models.transformer import Transformer
from ovd_jax.toy.tokenizers import SIZES, arithmetic_tokenizer
from ovd_jax.wiring.models import find_model, load_tokenizer, stop_ids

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "{% for m in messages %}<bos>{{ m['content'] }}<eos>{% endfor %}"
STOPS = [2, 7]
MESSAGES = [{"role": "user", "content": "3+4"}]
TX = optimizer(**flags.load_file("configs/sft.py").optimizer, total_steps=10)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = arithmetic_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def qwen3(config, make_model, tokenizer):
    shape = dataclasses.replace(
        config, vocab_size=len(tokenizer), qkv_bias=False, qk_norm=True
    )
    return make_model(shape)


@pytest.fixture
def folder(qwen3, tokenizer, tmp_path):
    """A folder as on the hub: several stop tokens, and a pad token of its own."""
    folder = tmp_path / "model"
    hf.save(qwen3, folder, tokenizer)
    generation = {"eos_token_id": STOPS, "pad_token_id": 0, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"eos_token_id": STOPS}))
    return folder


def settings(**knobs):
    config = flags.load_file("configs/export.py").copy_and_resolve_references()
    paths = {name: str(x) for name, x in knobs.items() if isinstance(x, Path)}
    config.update({"dtype": "float32"} | knobs | paths)
    return config


def exported(capsys, **knobs) -> dict:
    """Exports and gives the summary line."""
    export.main(settings(**knobs))
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def save_run(run: Path, started_from: str, **models):
    """A run as it is on disk: its config, and a checkpoint of each of `models`, which
    are named by their steps: `step_1=`."""
    config = flags.load_file("configs/sft.py").copy_and_resolve_references()
    config.model = started_from
    flags.save(config, run)
    checkpoints = Checkpoints(run, every=1)
    for name, model in models.items():
        step = jnp.asarray(int(name.removeprefix("step_")), jnp.int32)
        checkpoints.save(TrainState.create(model, TX).replace(step=step))
    checkpoints.close()


def test_a_run_from_before_there_were_adapters_is_exported(folder, tmp_path, capsys):
    save_run(tmp_path / "run", str(folder), step_1=hf.load(folder))
    file = tmp_path / "run" / "config.json"
    knobs = json.loads(file.read_text())
    del knobs["lora"]
    file.write_text(json.dumps(knobs))
    exported(capsys, model=tmp_path / "run", output=tmp_path / "out")
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), hf.load(folder))


def assert_same_companions(out: Path, folder: Path):
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == STOPS


def test_transformers_loads_an_export_with_its_logits_and_template(
    folder, qwen3, tmp_path, capsys
):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    summary = exported(
        capsys, model=folder, output=tmp_path / "out", max_shard_bytes=4000
    )
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert type(loaded).__name__ == "Qwen3ForCausalLM"
    assert not any(report.values())
    tokens_BT = np.random.default_rng(0).integers(0, qwen3.config.vocab_size, (2, 30))
    with torch.no_grad():
        theirs_BTV = loaded.eval()(torch.tensor(tokens_BT)).logits.numpy()
    ours_BTV = jax.jit(Transformer.__call__)(qwen3, tokens_BT)
    np.testing.assert_allclose(theirs_BTV, ours_BTV, atol=1e-4, rtol=1e-4)
    assert np.std(theirs_BTV) > 0.5
    assert loaded.generation_config.eos_token_id == STOPS
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert len(files) == summary["files"] > 2
    assert summary["bytes"] == sum(path.stat().st_size for path in files)
    assert summary["parameters"] == loaded.num_parameters()


def test_tokenizer_template_and_stop_tokens_come_along(folder, tmp_path, capsys):
    out = tmp_path / "out"
    exported(capsys, model=folder, output=out)
    assert_same_companions(out, folder)
    before, after = load_tokenizer(folder), load_tokenizer(out)
    texts = [t.apply_chat_template(MESSAGES, tokenize=False) for t in (before, after)]
    assert texts == ["<bos>3+4<eos>"] * 2
    assert before.get_vocab() == after.get_vocab()
    assert stop_ids(out, after) == stop_ids(folder, before) == tuple(STOPS)


def test_weights_have_the_dtype_that_is_asked_for(folder, qwen3, tmp_path, capsys):
    summary = exported(capsys, model=folder, output=tmp_path / "out", dtype="bfloat16")
    assert summary["bytes"] < 2.5 * summary["parameters"]
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), qwen3)
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), rounded)


@pytest.mark.parametrize("has_export", [True, False])
def test_of_a_run_the_newest_checkpoint_is_exported(
    has_export, folder, qwen3, tmp_path, capsys
):
    """Its tokenizer is that of its export, or else of the model it started from."""
    run = tmp_path / "run"
    newest = jax.tree.map(lambda x: x + 1, qwen3)
    save_run(run, str(folder), step_1=qwen3, step_2=newest)
    if has_export:
        hf.save(qwen3, run / "export", source=folder)
    exported(capsys, model=run, output=tmp_path / "out")
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), newest)
    assert_same_companions(tmp_path / "out", folder)


def test_a_run_without_checkpoints_is_exported_from_its_export(
    folder, qwen3, tmp_path, capsys
):
    hf.save(qwen3, tmp_path / "run" / "export", source=folder)
    save_run(tmp_path / "run", str(folder))
    exported(capsys, model=tmp_path / "run", output=tmp_path / "out")
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), qwen3)
    assert_same_companions(tmp_path / "out", folder)


@pytest.mark.slow
def test_a_run_that_started_from_nothing_has_the_embedded_tokenizer(tmp_path, capsys):
    run, tokenizer = tmp_path / "run", arithmetic_tokenizer()
    fresh = Transformer(SIZES["student"](len(tokenizer)), jax.random.key(3))
    save_run(run, "student", step_1=fresh)
    exported(capsys, model=run, output=tmp_path / "out")
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), fresh)
    loaded = load_tokenizer(tmp_path / "out")
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_a_run_that_has_saved_nothing_says_so(folder, tmp_path):
    run = tmp_path / "run"
    save_run(run, str(folder))
    with pytest.raises(ValueError, match="holds no checkpoint yet"):
        export.main(settings(model=run, output=tmp_path / "out"))
    with pytest.raises(ValueError, match=r"write one with `python launch/export\.py"):
        find_model(str(run), "student")


def test_a_gguf_becomes_a_folder(tmp_path, capsys):
    path = write_gguf(tmp_path / "model.gguf", hf_tensors("qwen3"), "qwen3")
    summary = exported(capsys, model=path, output=tmp_path / "out")
    out = hf.load(tmp_path / "out")
    assert out.config.qk_norm
    assert summary["parameters"] == sum(x.size for x in hf_tensors("qwen3").values())
    name = "model.layers.1.self_attn.q_norm.weight"
    np.testing.assert_array_equal(out.layers.q_norm.scale[1], hf_tensors("qwen3")[name])
    assert (tmp_path / "out" / "chat_template.jinja").is_file()


def test_a_gguf_in_place_of_a_folder_is_refused_with_the_remedy(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", hf_tensors())
    command = rf"launch/export\.py --config\.model={path} --config\.output=DIR"
    for name in (path, tmp_path):
        with pytest.raises(ValueError, match=command):
            find_model(str(name), "student")
        with pytest.raises(ValueError, match=command):
            hf.load(name)
    with pytest.raises(ValueError, match=r"No model folder at 'none\.gguf'"):
        export.main(settings(model="none.gguf", output=tmp_path / "out"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"output": ""}, r"config\.output is empty"),
        ({"model": ""}, r"config\.model is empty"),
        ({"output": "model"}, "is the model; name another"),
        ({"output": "notes"}, "is left alone"),
        ({"dtype": "int4"}, "'int4' is not one of float32, bfloat16, float16"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    knobs, message, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=message):
        export.main(settings(**{"model": folder, "output": "out"} | knobs))
    assert {path.name for path in tmp_path.iterdir()} == {"model", "notes"}


@pytest.mark.slow
def test_the_program_prints_a_summary_and_its_help(folder, tmp_path):
    program = [sys.executable, "launch/export.py"]
    knobs = [f"--config.model={folder}", f"--config.output={tmp_path / 'out'}"]
    done = subprocess.run([*program, *knobs], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["output"] == str(tmp_path / "out")
    assert summary["dtype"] == "bfloat16"
    help_text = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True)
    assert b"--config.max_shard_bytes=5000000000" in help_text.stdout


@pytest.mark.slow
def test_supervised_runs_keep_what_came_with_their_model(folder, tmp_path, capsys):
    config = flags.load_file("configs/sft.py").copy_and_resolve_references()
    knobs = {"num_steps": 1, "batch_size": 2, "sort_window": 1, "model": str(folder)}
    config.update(knobs | {"run_dir": str(tmp_path / "run"), "checkpoint_every": 0})
    sft.main(config)
    assert_same_companions(tmp_path / "run" / "export", folder)


@pytest.mark.parametrize("auto_map", [["own.Own", None], [None, "own.Own"], "own.Own"])
def test_code_in_a_models_folder_is_not_run(auto_map, tmp_path):
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": auto_map},
        },
        "config.json": {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}},
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises((UserError, OSError, ValueError)):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()
    if isinstance(auto_map, list):
        with pytest.raises(UserError, match="Python code of that folder, which is not"):
            load_tokenizer(tmp_path)

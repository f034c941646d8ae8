"""Broken files of models, and lengths that a model cannot read: one line each."""

import json
import re
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from strange_tokenizers import one_line, tokenizer

from ovd_jax import sft
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.models import hf, shards
from ovd_jax.models.gguf import read_gguf
from ovd_jax.models.hf_config import parse_config, to_hf_config
from ovd_jax.tasks.data.examples import Example
from ovd_jax.wiring.models import load_tokenizer, stop_ids

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
}  # fmt: skip


def changed(name, value) -> dict:
    raw = json.loads(json.dumps(LLAMA))
    holder = raw["rope_scaling"] if name in raw["rope_scaling"] else raw
    if value is None:
        holder.pop(name, None)
    else:
        holder[name] = value
    return raw


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, None) for name in LLAMA if name != "rope_scaling"],
        *[(name, None) for name in LLAMA["rope_scaling"] if name != "rope_type"],
        ("num_hidden_layers", 0),
        ("num_hidden_layers", "two"),
        ("num_hidden_layers", 2.5),
        ("num_attention_heads", 0),
        ("num_attention_heads", -4),
        ("num_key_value_heads", 3),
        ("hidden_size", True),
        ("hidden_size", [64]),
        ("head_dim", 15),
        ("vocab_size", "100"),
        ("rms_norm_eps", "tiny"),
        ("rope_theta", -1),
        ("rope_scaling", "linear"),
        ("factor", 0),
        ("factor", float("nan")),
        ("high_freq_factor", 1.0),
        ("original_max_position_embeddings", "8k"),
        ("max_position_embeddings", 1e999),
    ],
)
def test_a_config_that_says_nonsense_names_what(name, value):
    with pytest.raises(UserError, match=name.replace("head_dim", "heads")) as caught:
        parse_config(changed(name, value))
    one_line(caught)


LLAMA3 = LLAMA["rope_scaling"]
DEFAULT = {"rope_type": "default", "rope_theta": 1e6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # Long contexts are switched on by hand, in files of any version.
        (
            {"rope_parameters": DEFAULT, "rope_scaling": {"type": "yarn", "factor": 4}},
            "rope_type 'yarn'",
        ),
        ({"rope_parameters": DEFAULT, "rope_scaling": LLAMA3}, "differ; remove one"),
        ({"rope_parameters": LLAMA3, "rope_scaling": LLAMA3 | {"factor": 9}}, "differ"),
        ({"rope_parameters": {"full_attention": DEFAULT}}, "kinds of layers"),
        ({"rope_scaling": {"a": {}, "b": {}}}, "kinds of layers"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (
            {"rope_parameters": DEFAULT | {"partial_rotary_factor": 0.25}},
            "partial_rotary_factor",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention"] * 2}, "linear_attention"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_variant_that_would_be_read_as_the_plain_model_is_refused(
    settings, message, family
):
    with pytest.raises(UserError, match=message) as caught:
        parse_config(LLAMA | {"model_type": family, "rope_scaling": None} | settings)
    one_line(caught)


def test_both_names_of_the_rotary_settings_may_say_the_same():
    both = {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}, "rope_scaling": LLAMA3}
    read = parse_config(LLAMA | both | {"partial_rotary_factor": 1.0})
    assert (read.rope_theta, read.rope_scaling.factor) == (5e5, 8.0)
    plain = {"rope_scaling": None, "layer_types": ["full_attention"] * 2}
    read = parse_config(LLAMA | {"rope_parameters": DEFAULT} | plain)
    assert (read.rope_theta, read.rope_scaling) == (1e6, None)


def test_what_a_config_may_leave_out_is_what_transformers_has():
    assert parse_config(LLAMA).num_kv_heads == 4
    assert parse_config(LLAMA).head_dim == 16
    assert parse_config(LLAMA).max_positions == 2048
    qwen = parse_config(LLAMA | {"model_type": "qwen2", "rope_scaling": None})
    assert (qwen.max_positions, qwen.rope_scaling) == (32_768, None)
    assert parse_config(to_hf_config(parse_config(LLAMA))) == parse_config(LLAMA)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", shards._INDEX]
)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 9999])
def test_broken_json_ends_in_one_line(name, content, model, tmp_path):
    hf.save(model, tmp_path, max_shard_bytes=2000)
    (tmp_path / name).write_bytes(content)
    read = stop_ids if "generation" in name else lambda folder, _: hf.load(folder)
    with pytest.raises(UserError, match=name) as caught:
        read(tmp_path, tokenizer())
    one_line(caught)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}},
              {"weight_map": {"a": "../elsewhere.safetensors"}},
              {"weight_map": {"a": "missing.safetensors"}}]
)  # fmt: skip
def test_an_index_without_files_ends_in_one_line(index, model, tmp_path):
    hf.save(model, tmp_path, max_shard_bytes=2000)
    (tmp_path / shards._INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"fetch (it|the folder) again") as caught:
        hf.load(tmp_path)
    one_line(caught)


def test_a_tensor_in_two_files_is_the_one_that_the_index_names_or_an_error(
    model, tmp_path
):
    hf.save(model, tmp_path, max_shard_bytes=2000)
    files = sorted(tmp_path.glob("*.safetensors"))
    twice = next(iter(load_file(files[0])))
    last = load_file(files[-1])
    save_file(last | {twice: load_file(files[0])[twice] * 0 + 7}, files[-1])
    loaded = hf.load(tmp_path)
    np.testing.assert_array_equal(loaded.embed.embedding, model.embed.embedding)
    (tmp_path / shards._INDEX).unlink()
    with pytest.raises(UserError, match=twice) as caught:
        hf.load(tmp_path)
    assert files[0].name in one_line(caught)
    assert files[-1].name in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"no gguf at all" * 9,
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        b"GGUF" + b"\xff" * 64,
    ],
)
def test_a_broken_gguf_ends_in_one_line(content, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match="GGUF") as caught:
        read_gguf(path)
    one_line(caught)


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\0" * 64, b"{}"])
def test_broken_weights_end_in_one_line(content, model, tmp_path):
    hf.save(model, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="safetensors") as caught:
        hf.load(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("model.layers.2.mlp.up_proj.weight", True),  # of a deeper model
        ("model.layers.0.self_attn.o_proj.bias", True),
        ("model.layers.1.mlp.down_proj.bias", True),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", True),
        ("model.embed_positions.weight", True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False),
        ("v_head.weight", False),  # beside the model
    ],
)
@pytest.mark.parametrize("where", ["model.safetensors", "more.safetensors"])
def test_a_tensor_without_a_place_in_the_model_is_refused(
    name, refused, where, model, tmp_path
):
    hf.save(model, tmp_path)
    file = tmp_path / where
    if where != "model.safetensors":
        (tmp_path / "model.safetensors").rename(tmp_path / "first.safetensors")
    tensors = load_file(file) if file.exists() else {}
    save_file(tensors | {name: np.ones((2, 2), np.float32)}, file)
    if not refused:
        loaded = hf.load(tmp_path)
        np.testing.assert_array_equal(loaded.embed.embedding, model.embed.embedding)
        return
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        hf.load(tmp_path)
    one_line(caught)


def test_a_folder_whose_weights_went_says_so(model, tmp_path):
    hf.save(model, tmp_path / "m")
    shutil.move(tmp_path / "m" / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="holds no"):
        hf.load(tmp_path / "m")


@pytest.mark.parametrize(("prompt", "new"), [(60, 5), (65, 1), (1, 64), (200, 0)])
def test_more_tokens_than_positions_are_an_error(prompt, new, model):
    from ovd_jax.sampling.label_probs import label_probabilities
    from ovd_jax.sampling.sampler import Sampler

    sampler = Sampler(tokenizer(), stop_ids=(1,), max_new_tokens=max(new, 1))
    with pytest.raises(UserError, match="64 positions") as caught:
        sampler(model, [[2] * 3, [2] * prompt], seed=0)
    one_line(caught)
    if prompt > 62:
        with pytest.raises(UserError, match=f"{prompt + 2} tokens.*64 positions"):
            label_probabilities(model, [[2] * prompt], [[3, 4], [5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" * 70, r"An example: 73 tokens.*64 positions"),
        ("1", r"An example has the token 25\d, and the model has 26 tokens"),
    ],
)
def test_an_example_that_the_model_cannot_read_is_an_error(text, message, model):
    import configs.sft

    config = configs.sft.get_config()
    examples = lambda index, count: [Example(((text, 0.0), ("2", 1.0)))]  # noqa: E731
    batches = sft.batch_source(config, tokenizer(), examples, model.config)
    with pytest.raises(UserError, match=message):
        batches(0)


@pytest.mark.parametrize("token", [26, 27, 999])
def test_a_token_that_the_model_has_not_is_an_error(token, model):
    from ovd_jax.sampling.label_probs import label_probabilities
    from ovd_jax.sampling.sampler import Sampler

    sampler = Sampler(tokenizer(), stop_ids=(1,), max_new_tokens=4)
    with pytest.raises(UserError, match=f"the token {token}, .* has 26 tokens"):
        sampler(model, [[25], [2, token, 3]], seed=0)
    for prompt, label in ([2, token], [3]), ([2], [token]):
        with pytest.raises(UserError, match=f"the token {token}, .* has 26 tokens"):
            label_probabilities(model, [[2], prompt], [label, [5]])


@pytest.mark.parametrize(("size", "fits"), [(258, True), (257, False), (256, False)])
def test_a_tokenizer_whose_end_the_model_has_not_is_an_error(size, fits, tmp_path):
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": size}))
    if fits:
        assert load_tokenizer(tmp_path).eos_token_id < size
        return
    with pytest.raises(UserError, match=f"_token .* has {size} tokens") as caught:
        load_tokenizer(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    "knobs",
    [
        {"max_new_tokens": 500},
        {"max_prompt_tokens": 449},
        {"turns.total_tokens": 500},
    ],
)
def test_a_training_whose_answers_do_not_fit_the_model_does_not_begin(knobs, tmp_path):
    from ovd_jax import train

    talks = any(knob.startswith("turns.") for knob in knobs)
    name = "quickstart_search" if talks else "quickstart"  # students of 512 positions
    config = flags.load_file(f"configs/{name}.py").copy_and_resolve_references()
    config.run_dir = str(tmp_path)
    config.update_from_flattened_dict(knobs)
    with pytest.raises(UserError, match="512 positions"):
        train.main(config)

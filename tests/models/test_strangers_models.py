"""Models that other people made: how they begin and end a text, and broken files."""

import datetime
import json

import fakes
import numpy as np
import pytest
from strange_tokenizers import one_line, sentencepiece, tokenizer

from ovd_jax import sft
from ovd_jax.cli import flags
from ovd_jax.conversation.calculator import Calculator
from ovd_jax.conversation.env import Observation
from ovd_jax.conversation.reading import Reader
from ovd_jax.conversation.refine import Finding, Refiner
from ovd_jax.errors import UserError
from ovd_jax.evaluation.attempts import make_asks
from ovd_jax.reporting.run_dir import first_date
from ovd_jax.rollout.collect import Collector
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
from ovd_jax.text import chat_prompt, decode, encode, plain_prompt
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


PARTS = (  # as of models that read images
    "{% for m in messages %}{{ m['role'] }}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def saved_tokenizer(folder, **changes):
    tokenizer(**changes).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("change", ["trim", "upper", "e", "replace('H', '[H]')"])
def test_a_template_may_change_what_it_shows(change):
    made = tokenizer(template="{% for m in messages %}{{ m.content | X }}{% endfor %}")
    made.chat_template = made.chat_template.replace("X", change)
    shown = chat_prompt(made, " Hi <b> ", system="Hm")
    assert "hi" in shown.lower().replace("[h]", "h")


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

    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.update(changes)
    return config


SCHEMES = ["always", "first", "never", "prepend"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("text", ["the cat", "1+1=", " the", "2", "\n"])
def test_a_plain_prompt_has_the_tokens_that_its_tokenizer_gives_a_text(text, scheme):
    made = sentencepiece(scheme)
    assert encode(made, plain_prompt(made, text)) == made(text)["input_ids"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("step", ["Step 2\n", "2+2=the", "\n\n", "=1", " the cat"])
def test_a_step_of_the_teacher_s_stands_where_it_was_written(step, scheme):
    """No space comes before it."""
    made = sentencepiece(scheme)
    collector = Collector(
        task=MathTask(data="", seed=0, template="plain"), teacher=None, tokenizer=made,
        rules=fakes.rules(granularity="none", threshold=0),
    )  # fmt: skip
    before = encode(made, "Step 1\n")
    student = collector.trajectory(
        before, [0.0] * len(before), [False] * len(before), stopped=True
    )
    spliced = collector.spliced(student, len(before), step)
    assert spliced.text == f"Step 1\n{step}"
    observation = Reader(Calculator(None), made, most=99)
    read = observation.read(Observation(step), 99)
    shown = decode(made, [*before, *read])
    assert shown.startswith(f"Step 1\n{Calculator.observation_tags[0]}")
    rows = sft.encode(made, Example((("the", 0.0), (step, 1.0))))
    assert decode(made, [token for token, *_ in rows]) == f"the{step}"


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


@pytest.mark.parametrize("kept", ["a file of its own", "names", "beside others"])
def test_a_template_of_several_is_told_the_day_too(kept, tmp_path):
    saved_tokenizer(tmp_path, template=DATED)
    if kept == "names":
        named = [{"name": x, "template": DATED} for x in ("default", "tool_use")]
        path = tmp_path / "tokenizer_config.json"
        settings = json.loads(path.read_text()) | {"chat_template": named}
        path.write_text(json.dumps(settings))
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    elif kept == "beside others":
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "rag.jinja").write_text(DATED)
    made = load_tokenizer(tmp_path, "2024-02-29")
    assert chat_prompt(made, "Hi").startswith("Today Date: 29 Feb 2024\n")


@pytest.mark.parametrize("date", ["yesterday", "2024-13-01", "29 Feb 2024", "2023-2-9"])
def test_what_is_no_day_is_refused(date, tmp_path):
    with pytest.raises(UserError, match=r"config\.date is .*write it as"):
        dated(build_config(date=date), "2024-02-29")
    (tmp_path / "date.txt").write_text(date)
    with pytest.raises(UserError, match=r"date\.txt is .*write it as"):
        first_date(tmp_path)


# Broken files


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (GEMMAS, "Be brief.", "refuses a system message.*System role not supported"),
        ("{% for m in", "", "refuses a user's message"),
        ("{{ messages[3].content }}", "", "refuses a user's message"),
        ("{{ 1 / 0 }}", "", "ZeroDivisionError"),
        ("{{ nothing.at.all }}", "x", "undefined"),
        (PARTS, "", "leaves out a message that is text"),
        ("{{ messages[-1].content }}", "Be brief.", "leaves out a system message"),
        ("{{ messages[0].content }}", "Be brief.", "leaves out a message that is text"),
        ("nothing", "Be brief.", "leaves out"),
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


def test_plain_text_of_a_tokenizer_without_a_start_token_stays_as_it_is():
    assert plain_prompt(tokenizer(bos=False), "3+4=") == "3+4="
    assert plain_prompt(None, "3+4=") == "3+4="


# More tokens than a model knows positions for

"""Templates are checked when they are made, and what fills them cannot break out."""

import dataclasses
import string

import pytest

from ovd_jax.teacher.prompts import PROMPTS, TeacherPrompt, fill, harmless

SPECIAL = ("<judge>", "<|end|>", "<|end_of_text|>")
GOOD = TeacherPrompt(
    score_step="{question} {previous} {step}",
    score_trajectory="{question} {solution}",
    demonstrate="{question}",
    labels=("bad", "good"),
)


@pytest.mark.parametrize(
    ("name", "template", "found"),
    [
        ("score_step", "{question} {previous}", r"\['previous', 'question'\]"),
        ("score_step", "{question}{previous}{step}{answer}", "'answer'"),
        ("score_step", "{question}{previous}{stpe}", "'stpe'"),
        ("score_trajectory", "{question}", r"\['question'\]"),
        ("score_trajectory", "{question}{solution}{}", r"\['', 'question'"),
        ("demonstrate", "Solve it.", r"\[\]"),
        ("demonstrate", "{question} {prefix}", r"\['prefix', 'question'\]"),
        ("demonstrate", "{question.__class__}", "'question.__class__'"),
        ("demonstrate", "{question[0]}", r"'question\[0\]'"),
    ],
)
def test_missing_and_unknown_fields_are_named(name, template, found):
    with pytest.raises(ValueError, match=rf"template {name} has the fields .*{found}"):
        dataclasses.replace(GOOD, **{name: template})


def test_the_error_says_which_fields_are_needed():
    with pytest.raises(ValueError, match=r"needs \['question', 'solution'\]"):
        dataclasses.replace(GOOD, score_trajectory="{solution}")


def test_doubled_braces_are_text():
    prompt = dataclasses.replace(GOOD, demonstrate="\\boxed{{}} {question}")
    assert fill(prompt.demonstrate, SPECIAL, question="1+1") == "\\boxed{} 1+1"


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_the_built_in_prompts_never_ask_for_the_answer(name):
    prompt = PROMPTS[name]
    templates = (prompt.score_step, prompt.score_trajectory, prompt.demonstrate)
    for template in templates:
        assert "answer" not in {f for _, f, _, _ in string.Formatter().parse(template)}


def test_labels_rise_from_the_worst():
    assert PROMPTS["digits"].labels == tuple("0123456789")
    assert PROMPTS["embedded"].labels == tuple("0123456789")
    assert PROMPTS["one_to_ten"].labels[0] == "1"
    assert PROMPTS["one_to_ten"].labels[9] == "10"


@pytest.mark.parametrize("text", ["{question}", "{0}", "{step!r}", "{{}}", "}", "%s"])
def test_braces_in_a_slot_are_left_as_they_are(text):
    filled = fill("A {question} B {step} C", SPECIAL, question=text, step="1")
    assert filled == f"A {text} B 1 C"


def test_special_tokens_of_the_template_stay():
    filled = fill("<|end|>{question}<judge>", SPECIAL, question="1<judge>2")
    assert filled == "<|end|>1< judge>2<judge>"


@pytest.mark.parametrize(
    ("first", "second"),
    [("<jud", "ge>"), ("<", "judge>"), ("<|end", "|>"), ("<|end_of", "_text|>")],
)
def test_two_slots_that_touch_cannot_form_a_special_token_together(first, second):
    filled = fill("{question}{step}<judge>", SPECIAL, question=first, step=second)
    assert filled.endswith("<judge>")
    assert not [token for token in SPECIAL if token in filled[: -len("<judge>")]]
    assert filled.replace(" ", "") == first + second + "<judge>"


def test_a_tokenizer_without_special_tokens_changes_nothing():
    assert fill("{question}<judge>", (), question="<judge>") == "<judge><judge>"


def test_ordinary_text_is_not_touched():
    text = "Let x < 3, so |x| > 2.\n\\[ \\frac{1}{2} \\] é 日本 😀"
    assert harmless(text, SPECIAL) == text


def test_a_long_text_loses_its_middle():
    text = "a" * 500_000 + "b" * 500_000
    short = harmless(text, SPECIAL)
    assert short == "a" * 10_000 + "\n[...]\n" + "b" * 10_000
    assert harmless("c" * 20_000, SPECIAL) == "c" * 20_000


def test_lone_surrogates_are_made_to_encode():
    safe = harmless("a\ud800b\udfff", SPECIAL)
    assert safe.encode("utf-8").decode("utf-8") == safe == "a?b?"

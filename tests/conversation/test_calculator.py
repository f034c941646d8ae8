"""The calculator: right values, and a bounded answer to any text."""

import time

import pytest
from search_fakes import Questions

from ovd_jax.conversation.calculator import Calculator, calculate
from ovd_jax.conversation.env import Done, Observation
from ovd_jax.tasks.base import Problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("48/2", "24"), ("7*(2-8)", "-42"), ("0.1+0.2", "0.3"),
        ("10/3", "3.33333333333"),
        ("2^10", "1024"), ("2**0.5", "1.41421356237"), ("7//2", "3"), ("10%4", "2"),
        ("--3", "3"), ("-2**2", "-4"), ("12,000*3", "36000"), ("$5*4", "20"),
        (" 3 + 4 = ", "7"), ("3\n+4", "7"), ("6\xd73\xf72\u22121", "8"), ("5", "5"),
        (".5+.5", "1"), ("10**30", "1" + "0" * 30), ("2**-200", "6.22301527786e-61"),
    ],
)  # fmt: skip
def test_the_value_of_an_expression(text, value):
    assert calculate(text) == value


HOSTILE = {
    "9**9**9": "exponent", "9**200": "too large", "2.5**200": "too large",
    "(10**30)**200": "too large", "99999**9999999": "exponent",
    "(-8)**0.5": "no real number", "0.0**-1": "zero", "1/0": "zero", "1%0": "zero",
    "9" * 199: "too large", "9" * 10**6: "characters", "(" * 10**6: "characters",
    "(" * 99 + "1" + ")" * 99: "", "(" * 199: "no expression",
    "-" * 199: "no expression",
    "__import__('os').system('true')": "alone", "open": "alone", "1e999": "alone",
    "[0]*10": "alone", "lambda:0": "alone", "x:=1": "alone", "1 if 1 else 2": "alone",
    "'a'*9": "alone", "\uff11+1": "alone", "1\x00": "alone", "\ud800": "alone",
    "</calculator>": "alone", "": "alone", "=": "alone", " ": "alone",
    "()": "no expression", "1 2": "no expression", "(1)(2)": "no expression",
    "0777": "no expression", "1..real": "alone", "1_0": "alone", "*1": "no expression",
    "1.2.3": "no expression", "3+": "no expression",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_any_text_has_a_short_answer_at_once(text):
    started = time.perf_counter()
    try:
        said = calculate(text)
    except ValueError as error:
        said = str(error)
    assert time.perf_counter() - started < 1
    assert HOSTILE[text] in said
    assert len(said) < 100


@pytest.mark.parametrize(
    ("turn", "step"),
    [
        ("<calculator>3+4</calculator>", Observation("7")),
        ("So: <calculator> 3+4 </calculator> and", Observation("7")),
        ("<calculator>1<calculator>2</calculator>", Observation("2")),
        ("<calculator>1</calculator><calculator>2</calculator>", Observation("1")),
        ("The answer is 7.", Done()),
        ("<calculator>3+4", Done()),
        ("", Done()),
    ],
)
def test_what_a_turn_does(turn, step):
    assert Calculator(Questions()).step(turn) == step


@pytest.mark.parametrize(
    "turn",
    ["3+4</calculator>", "<calculator></calculator>", "<calculator>x</calculator>"],
)
def test_what_cannot_be_calculated_is_said_and_is_no_valid_turn(turn):
    said = Calculator(Questions()).step(turn)
    assert said.text.startswith("error: ")
    assert not said.valid


def test_the_prompt_is_the_tasks_with_how_to_calculate_before_the_question():
    problem = Problem("1", "What is 3+4?", "7", "hand")
    prompt = Calculator(Questions()).reset(problem)
    assert prompt.startswith("Q: Whenever you need to calculate")
    assert "<calculator>12*(3+4)</calculator>" in prompt
    assert prompt.endswith("\n\nWhat is 3+4?\n")

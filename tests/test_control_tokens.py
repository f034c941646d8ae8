"""Control tokens of any model, by their shape: no text forms one in a prompt."""

from pathlib import Path

import pytest

from ovd_jax.search.base import Document
from ovd_jax.search.observation import observation
from ovd_jax.template import fill
from ovd_jax.text import neutralize

# One a line, of most families of models.
TOKENS = Path(__file__).with_name("control_tokens.txt").read_text("utf-8").split()
HONEST = (
    "a<b>c", "x < 3 and |x| > 2", "[ABC] = 12", "[AB]", "[1, 2]", "<x, y>", "|x|<|y|",
    "a<b|c", "$|x|$", "if a<b and c>d", "<5>", "f<g>", "<html>", "[0, 1)", "<think>",
    "</answer>", "<search>", "|a| < |b|", "List<String>", "<step>", "x>>2<<3", "<br>",
    "[INSTANT]", "1<2>0", "[|", "|]", "<information>", "#### 9", "(7*2)-5",
)  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_of_any_family_is_broken_up(token):
    assert neutralize(f"a{token}b", ()) == f"a{token[0]} {token[1:]}b"
    assert fill("{question}", (), question=token) == f"{token[0]} {token[1:]}"
    read = observation((Document("t", f"x {token} y"),), (), 1000)
    assert token not in read


@pytest.mark.parametrize("text", HONEST)
def test_text_that_has_no_such_shape_stays(text):
    assert neutralize(text, ()) == text


@pytest.mark.parametrize("token", TOKENS)
def test_two_slots_that_touch_form_no_control_token(token):
    for cut in range(1, len(token)):
        filled = fill("{a}{b}", (), a=token[:cut], b=token[cut:])
        assert token not in filled


def test_a_template_keeps_its_own_control_tokens():
    template = "<|im_start|>user\n{question}<|im_end|>\n<\uff5cAssistant\uff5c>"
    filled = fill(template, (), question="<|im_end|>")
    assert filled == template.replace("{question}", "< |im_end|>")


@pytest.mark.parametrize(
    "text", ["<|" * 10_000, "<" * 20_000, "<|a" * 7_000, "</" * 9_999]
)
def test_many_beginnings_of_tokens_take_no_time(text):
    assert neutralize(text, ("<eos>",)) == text

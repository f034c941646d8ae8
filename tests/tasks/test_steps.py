"""Every rule for steps, worked by hand and on text put together at random."""

import random
import time

import pytest

from ovd_jax.tasks.base import steps
from ovd_jax.tasks.math import MathTask
from ovd_jax.tasks.steps import RULES, STOPS, step_ends, sure_end

NESTED = "\\begin{a}\n\\begin{b}\n\\end{b}\n\\end{a}"


def cut(text, rule="lines"):
    return list(steps(text, step_ends(text, rule)))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("one", ["one"]),
        ("\n \n", ["\n \n"]),
        ("a\nb\n\n \nc", ["a\n", "b\n\n \n", "c"]),
        ("\n\na\n  ", ["\n\na\n  "]),
        ("a\n$$\nx\n$$\nb", ["a\n", "$$\nx\n$$\n", "b"]),
        ("a \\[\nx\\\\[2pt]\n\\] b\nc", ["a \\[\nx\\\\[2pt]\n\\] b\n", "c"]),
        (f"{NESTED}\nc", [f"{NESTED}\n", "c"]),
        ("```\na\n$$\n```\nb\n$$ c", ["```\na\n$$\n```\n", "b\n", "$$ c"]),
        ("$$ never\nclosed", ["$$ never\n", "closed"]),
        ("\\end{a}\n\\begin{a}\nb", ["\\end{a}\n", "\\begin{a}\n", "b"]),
        ("so $a\n+b$ is\nc", ["so $a\n+b$ is\n", "c"]),
        ("I pay $5\nand $6\nor 7", ["I pay $5\n", "and $6\n", "or 7"]),
        ("$a\n\nb$", ["$a\n\n", "b$"]),  # no formula has a blank line in it
        ("\\$a\nb$", ["\\$a\n", "b$"]),
        ("\\(a\nb\\)\nc", ["\\(a\nb\\)\n", "c"]),
    ],
)
def test_steps_are_lines_that_keep_mathematics_and_code_whole(text, pieces):
    assert cut(text) == pieces


@pytest.mark.parametrize(
    ("rule", "text", "pieces"),
    [
        ("blank_lines", "a\nb\n\nc\n \nd\n", ["a\nb\n\n", "c\n \n", "d\n"]),
        ("blank_lines", "$$a\n\nb$$\n\nc", ["$$a\n\nb$$\n\n", "c"]),
        ("sentences", "One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("sentences", '"Yes." So.\nx=1\n', ['"Yes." ', "So.\n", "x=1\n"]),
        ("sentences", "3.5 m, e.g. for Dr. No.", ["3.5 m, e.g. for Dr. No."]),
        ("sentences", "1. Add. 2. Halve", ["1. Add. ", "2. ", "Halve"]),
        ("sentences", "So $a. b$ is. `c. d` too.", ["So $a. b$ is. ", "`c. d` too."]),
        ("sentences", "So... Well", ["So... ", "Well"]),
        ("sentences", "1\u30022\uff01 3", ["1\u3002", "2\uff01 ", "3"]),
        (
            "step_n",
            "Plan\n\nStep 1: a\nb\n**Step 2**\nc, see step 1\n",
            ["Plan\n\n", "Step 1: a\nb\n", "**Step 2**\nc, see step 1\n"],
        ),
        ("step_n", "Step 1: a. Step 2: b", ["Step 1: a. ", "Step 2: b"]),
        ("step_n", "```\nStep 1\n```\nStep 2", ["```\nStep 1\n```\n", "Step 2"]),
        ("step_n", "Footstep 1\nstepping 2", ["Footstep 1\nstepping 2"]),
        (
            "tags",
            "<think>a\n<b>c</b></think>\n<search>d</search>e",
            ["<think>a\n<b>c</b></think>\n", "<search>d</search>", "e"],
        ),
        ("tags", "<think>never <b>c</b> d", ["<think>never <b>c</b> ", "d"]),
        ("tags", "`<a>b</a>` c <d>e</d> f", ["`<a>b</a>` c <d>e</d> ", "f"]),
        ("tags", "a</x>b", ["a</x>b"]),
    ],
)  # fmt: skip
def test_each_rule_cuts_where_it_says(rule, text, pieces):
    assert cut(text, rule) == pieces


WHOLE = [
    "$$\nx. Y\n\n$$",
    "\\[\ny\n\nStep 1: \\]",
    "```\nz. A <a></a>\n\n```",
    "$q. R$",
]
WHOLE += [
    "\\begin{a}\n1\\\\\n\n2. B\n\\end{a}",
    "\\(u. V <i></i>\\)",
    "`v. W <b></b> `",
]
PARTS = [
    "a",
    " ",
    "\n",
    "\n\n",
    "\\\\",
    "\r\n",
    "End. ",
    "Step 2: ",
    "\nStep 3",
    "</t>",
]
PARTS += ["<t>", "one? ", "\u2028", "\ud800", "3.5", "\u3002", "<", "{"]


@pytest.mark.parametrize("rule", RULES)
def test_every_character_is_in_one_step_and_nothing_closed_is_split(rule):
    randomly = random.Random(rule)
    for _ in range(2000):
        chosen = randomly.choices(PARTS + WHOLE, k=randomly.randrange(14))
        text = "b".join(chosen)
        pieces = cut(text, rule)
        assert "".join(pieces) == text
        assert all(piece.strip() for piece in pieces) or len(pieces) == 1
        for whole in set(chosen) & set(WHOLE):
            assert sum(p.count(whole) for p in pieces) == chosen.count(whole)


@pytest.mark.parametrize("rule", RULES)
def test_marks_that_are_never_closed_lose_no_character(rule):
    randomly = random.Random(rule)
    marks = ["$", "$$", "`", "```", "\\[", "\\]", "\\(", "\\begin{", "\\end{", "\\"]
    for _ in range(2000):
        text = "".join(randomly.choices(PARTS + marks, k=randomly.randrange(14)))
        ends = step_ends(text, rule)
        assert list(ends) == sorted(set(ends))
        assert ends[-1:] == ((len(text),) if text else ())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "piece",
    [
        "\n", " \n", "$$", "$$\n", "\\[\n", "```\n", "\\begin{a}\n", "\\", "\n ", "$a",
        "`", ".", ". ", ".'", "<a>", "</a>", "<a", "Step 1", "\nStep 1", " ", "<a></a>",
    ],
)  # fmt: skip
def test_cutting_into_steps_takes_linear_time(rule, piece):
    start = time.process_time()
    step_ends(piece * (300_000 // len(piece)), rule)
    assert time.process_time() - start < 3


def test_an_unknown_rule_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="'paragraphs' is not one of lines, blank"):
        MathTask(
            data="gsm8k_train_sample", seed=0, template="plain", step_rule="paragraphs"
        )


def test_a_math_task_cuts_by_its_rule():
    task = MathTask(
        data="gsm8k_train_sample", seed=0, template="plain", step_rule="sentences"
    )
    assert task.step_ends("One. Two.") == (5, 9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(40))
def test_a_sure_end_is_one_however_the_text_goes_on(rule, seed):
    rng = random.Random(seed)
    pieces = ("a", "b.", " ", "\n", "\n\n", "$", "$$", "\\[", "\\]", "`", "Step 1:",
              "<t>", "</t>", "\\begin{x}", "\\end{x}", "5", "```")  # fmt: skip
    text = "".join(rng.choices(pieces, k=rng.randint(1, 12))) + STOPS[rule]
    end = sure_end(text, lambda x: step_ends(x, rule))
    if end is not None:
        for more in ("1", "1 b", "1\\]\n1", "1$$\n1", "1```\n1", "1</t>\n1"):
            assert step_ends(text + more, rule)[0] == end <= len(text)


@pytest.mark.parametrize(
    ("rule", "text", "end"),
    [
        ("lines", "a\n", 2),
        ("lines", "a", None),
        ("lines", "\n", None),
        ("lines", "\\[\n", None),
        ("lines", "\\[\nx\n\\]\n", 8),
        ("lines", "a\nb", 2),
        ("blank_lines", "a\nb\n", None),
        ("blank_lines", "a\nb\n\n", 5),
        ("sentences", "One. Two", 5),
        ("sentences", "e.g. x", None),
        ("sentences", "One\n", 4),
        ("step_n", "Step 1: a\nStep ", 10),
        ("step_n", "Step 1: a\n", None),
        ("tags", "<a>b\n", None),
        ("tags", "<a>b</a>\nc", 9),
    ],
)
def test_the_end_of_a_first_step_is_sure_or_not_yet_known(rule, text, end):
    assert sure_end(text, lambda x: step_ends(x, rule)) == end

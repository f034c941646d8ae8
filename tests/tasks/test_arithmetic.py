"""Problems, answers and exact scores of the arithmetic task, against other arithmetic.

`parse` below reads the same little language through Python's own parser, where the
task rewrites innermost operations by regular expressions.
"""

import ast
import itertools
import random
import re
import time

import pytest

from ovd_jax.tasks.arithmetic import (
    ANSWER,
    ArithmeticTask,
    Difficulty,
    evaluate,
    is_held_out,
    judge_step,
    judge_steps,
    solve,
)
from ovd_jax.tasks.base import Problem, steps
from ovd_jax.toy.arithmetic_examples import joined, judgement, trajectory_score
from ovd_jax.toy.corruption import corrupt, judged_solution

TASK = ArithmeticTask()
OPERATIONS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
ANSWERS = (
    ("7*2\n#### 14", "14"), ("#### 14  \n\n", "14"), ("#### 007", "7"), ("#### 0", "0"),
    ("#### 1\n#### 2", "2"), ("#### 1 #### 2", "2"), ("#### 999999999", "999999999"),
    ("#### " * 200_000 + "5", "5"),
)  # fmt: skip
NO_ANSWER = (
    "14", "", "#### ", "####14", "#### -5", "#### 5 apples", "#### 5\n6", "#### 5.0",
    "#### 2\n#### ", "#### 1_000", "#### 3+4", "#### 9999999999",
    "#### " + "9" * 1_000_000, "\n" * 1_000_000, "#### 5" + " " * 1_000_000 + "x",
)  # fmt: skip
HOSTILE = (
    "(" * 1_000_000, "9" * 1_000_000, "#### " * 100_000, "(9*9)+" * 33, "9*" * 99 + "9",
    "(" * 99 + ")" * 99, "-".join("()" * 50), " " * 1_000_000, "3+4\0", "٣+٤²",
    "\ud800",
)  # fmt: skip
RUBRIC = {  # (line before, step)
    9: [("(3+4)*2", "7*2\n"), ("7*2", "#### 14"), ("((3+4)*2)-5", "(7*2)-5"),
        ("7", "#### 7")],  # only the mark was missing
    7: [("((3+4)*2)-5", "14-5"), ("((3+4)*2)-5", "#### 9")],  # two and three at once
    5: [("(3+4)*2", "(3+4)*2"), ("(3+4)*2", "(4+3)*2"), ("7*2", "(3+4)*2"),
        ("7*2", "#### 7*2"), ("14", "14"), ("#### 14", "#### 14")],
    2: [("7*2", "#### 15"), ("7*2", "#### 12"), ("(3+4)*2", "8*2")],
    1: [("7*2", "#### 17"), ("7*2", "#### 11"), ("(3+4)*2", "7+2")],
    0: [("7*2", ""), ("7*2", "fourteen"), ("7*2", "7*2=14"), ("7*2", "####"),
        ("nothing", "#### 14"), ("(3+4)*2", "3+4*2"), ("7*2", "3-5")],
}  # fmt: skip


def read(node: ast.expr) -> tuple[str, int, list[int], list[int]]:
    """(what it looks like with brackets, value, all results, operands) of Python's
    syntax tree."""
    if isinstance(node, ast.Constant):
        return str(node.value), node.value, [], [node.value]
    left, right = read(node.left), read(node.right)
    sign = OPERATIONS[type(node.op)]
    shown = sign.join(x if x.isdigit() else f"({x})" for x in (left[0], right[0]))
    value = eval(f"{left[1]}{sign}({right[1]})")
    return shown, value, [*left[2], *right[2], value], [*left[3], *right[3]]


def parse(line: str) -> tuple[int, int] | None:
    """(value, operations) of a line with all brackets and no result below 0."""
    text = line.strip().removeprefix("####").strip()
    text = re.sub(r"(?<!\d)0+(?=\d)", "", text)  # 007 is a number here
    try:
        shown, value, results, _ = read(ast.parse(text, mode="eval").body)
    except (SyntaxError, AttributeError, KeyError):
        return None
    valid = shown == text and min(results, default=0) >= 0
    return (value, len(results)) if valid else None


def draw(count=300, **knobs):
    return ArithmeticTask(difficulty=Difficulty(**knobs)).problems(0, count)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"min_operations": 1, "max_operations": 1, "max_operand": 3},
        {"min_operations": 5, "max_operations": 7, "max_value": 12, "max_operand": 5},
        {"max_operand": 99, "max_value": 200},
    ],
)
def test_problems_respect_the_difficulty(knobs):
    limits = Difficulty(**knobs)
    counts, seen = set(), set()
    for problem in draw(**knobs):
        tree = ast.parse(problem.question, mode="eval").body
        _, value, values, operands = read(tree)
        counts.add(len(values))
        assert all(0 <= v <= limits.max_value for v in values)
        assert all(1 <= v <= limits.max_operand for v in operands)
        assert problem.answer == str(value)
        seen.update(operands)
    assert counts == set(range(limits.min_operations, limits.max_operations + 1))
    assert max(seen) == limits.max_operand or limits.max_operand > 9


def test_sizes_without_problems_are_refused():
    with pytest.raises(ValueError, match=r"min_operations 5 is more than .*, 4"):
        Difficulty(min_operations=5)
    numbers = Difficulty(min_operations=0, max_operations=0, max_operand=2)
    with pytest.raises(ValueError, match="hardly any held-out problems: set arith"):
        ArithmeticTask(difficulty=numbers).held_out(1)


def test_solutions_do_one_operation_a_line_and_end_in_the_answer():
    for problem in draw():
        lines = problem.solution.split("\n")
        assert lines == list(solve(problem.question))
        expressions = [problem.question, *lines[:-1], lines[-1].removeprefix(ANSWER)]
        parsed = [parse(expression) for expression in expressions]
        value, operations = parsed[0]
        assert parsed == [(value, operations - i) for i in range(operations + 1)]
        assert lines[-1] == f"{ANSWER}{problem.answer}"
        assert not any(ANSWER in line for line in lines[:-1])
        assert TASK.rewards([problem], [problem.solution]) == [1.0]


def test_the_example_of_the_task_is_solved_as_it_says():
    expected = ["(7*2)-(8-5)", "14-(8-5)", "14-3", "#### 11"]
    assert list(solve("((3+4)*2)-(8-5)")) == expected


def test_training_and_held_out_problems_never_overlap():
    trained = {
        problem.question
        for seed, step in itertools.product(range(2), range(10))
        for problem in ArithmeticTask(seed=seed).problems(step, 40)
    }
    held_out = {problem.question for problem in TASK.held_out(200)}
    assert len(trained) > 600
    assert len(held_out) > 150
    assert not trained & held_out
    assert not any(map(is_held_out, trained))
    assert all(map(is_held_out, held_out))


def test_a_tenth_of_all_expressions_is_held_out():
    share = sum(is_held_out(f"{n}+1") for n in range(20_000)) / 20_000
    assert share == pytest.approx(0.1, abs=0.01)


def test_problems_are_a_function_of_seed_and_step():
    again = ArithmeticTask(seed=0)
    assert TASK.problems(3, 20) == again.problems(3, 20)
    assert TASK.problems(3, 20) == again.problems(3, 30)[:20]
    assert TASK.problems(3, 20) != TASK.problems(4, 20)
    assert TASK.problems(3, 20) != ArithmeticTask(seed=1).problems(3, 20)
    assert TASK.held_out(20) == ArithmeticTask(seed=1).held_out(30)[:20]


def test_the_prompt_shows_the_question_alone():
    problem = Problem(id="p", question="3+4", answer="7", source="", solution="#### 7")
    assert TASK.prompt(problem) == "3+4=\n"


@pytest.mark.parametrize(("text", "expected"), ANSWERS)
def test_the_answer_is_the_bare_number_after_the_last_mark(text, expected):
    assert TASK.extract(text) == expected


@pytest.mark.parametrize("text", NO_ANSWER)
def test_there_is_no_answer_in_anything_else(text):
    assert TASK.extract(text) is None


def test_only_the_right_answer_pays():
    problem = Problem(id="p", question="7*2", answer="14", source="")
    texts = [
        "#### 14",
        "#### 014",
        "#### 15",
        "14",
        "#### 14\n#### 13",
        "#### 13#### 14",
    ]
    rewards = TASK.rewards([problem] * 6, texts)
    assert rewards == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_step_ends_cover_every_character_once():
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices("1+\n\r\u2028é😀", k=rng.randint(0, 12)))
        ends = TASK.step_ends(text)
        assert list(ends) == sorted(set(ends))
        assert "".join(steps(text, ends)) == text
        assert all(step.find("\n") in (-1, len(step) - 1) for step in steps(text, ends))
        assert all(steps(text, ends))


@pytest.mark.parametrize(
    ("text", "ends"),
    [("", ()), ("a", (1,)), ("\n", (1,)), ("a\nb", (2, 3)), ("a\n\nb\n", (2, 3, 5))],
)
def test_every_line_is_a_step(text, ends):
    assert TASK.step_ends(text) == ends


@pytest.mark.parametrize("score", RUBRIC)
def test_the_rubric_by_hand(score):
    for before, step in RUBRIC[score]:
        assert judge_step(before, step) == score, (before, step)


def test_steps_are_judged_against_the_line_before_right_or_wrong():
    lines = ["8*2", "#### 16", "#### 14"]
    assert judge_steps("(3+4)*2", lines) == [2, 9, 2]
    assert judge_steps("3+4", []) == []


def test_evaluation_agrees_with_a_parser_on_corrupted_lines():
    rng = random.Random(0)
    outcomes = {True: 0, False: 0}
    for problem in draw(200):
        for line in (problem.question, *problem.solution.split("\n")):
            for _ in range(3):
                line = corrupt(line, rng) if parse(line) else line
                assert evaluate(line) == parse(line), line
                outcomes[parse(line) is None] += 1
    assert min(outcomes.values()) > 400


@pytest.mark.parametrize("line", ["15(3*3)", "(9-3)2", "(2*3)(4-3)"])
def test_a_number_that_touches_a_bracket_is_no_expression(line):
    assert evaluate(line) is None


def test_labels_of_judged_solutions_are_the_scores_of_their_lines():
    rng = random.Random(0)
    seen = set()
    for problem in draw(300):
        lines, labels = judged_solution(problem.question, rng)
        assert 1 <= len(lines) == len(labels) <= 11
        for (before, line), label in zip(
            itertools.pairwise([problem.question, *lines]), labels, strict=True
        ):
            assert label == judge_step(before, line)
            old, new = parse(before), parse(line)
            assert (label == 0) is (new is None)
            assert (label >= 5) is (new is not None and new[0] == old[0])
        seen.update(labels)
    assert seen == {0, 1, 2, 5, 7, 9}


def test_a_judgement_scores_every_step_and_the_whole_and_trains_on_right_steps():
    rng = random.Random(0)
    seen = set()
    for problem in draw(200):
        example = judgement(TASK, problem, rng)
        (asked, read), *body = example.pieces
        assert (asked, read) == (problem.question + "=\n", 0.0)
        lines = "".join(text for text, _ in body).splitlines()
        scores = judge_steps(problem.question, lines)
        assert [weight for _, weight in body] == [float(s == 9) for s in scores]
        *by_step, whole = [
            (branch.after, *(text for text, _ in branch.pieces))
            for branch in example.branches
        ]
        assert by_step == [(i + 2, "<judge>", str(s)) for i, s in enumerate(scores)]
        best = trajectory_score(lines, scores)
        assert whole == (len(lines) + 1, "<grade>", str(best))
        assert example.ends is (best == 9)
        seen.add(best)
    assert seen >= {0, 1, 2, 9}


def test_a_solution_without_an_answer_is_not_a_good_one():
    assert trajectory_score(["7*2", "#### 14"], [9, 9]) == 9
    assert trajectory_score(["7*2", "#### 14"], [9, 2]) == 2
    assert trajectory_score(["7*2"], [9]) == 4
    assert trajectory_score([], []) == 4
    assert joined(["7*2", "#### 14"]) == "7*2\n#### 14"


@pytest.mark.parametrize("line", HOSTILE)
def test_hostile_lines_are_no_expression_and_cost_nothing(line):
    started = time.perf_counter()
    assert evaluate(line) is None
    assert judge_step("7*2", line) == judge_step(line, "7*2") == 0
    assert time.perf_counter() - started < 1.0


def test_the_largest_numbers_that_fit_a_line_are_still_exact():
    nines = "9" * 99
    assert evaluate(f"{nines}*{nines}") == (int(nines) ** 2, 1)
    assert evaluate("9" * 200) == (int("9" * 200), 0)
    assert evaluate("9" * 201) is None

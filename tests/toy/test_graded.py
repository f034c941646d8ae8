"""The scale that the embedded teacher is taught, with scores worked by hand."""

import json
import random

import pytest

from ovd_jax.errors import UserError
from ovd_jax.tasks.arithmetic import ArithmeticTask, reductions, solve
from ovd_jax.toy.arithmetic_examples import arithmetic_examples, read_judged
from ovd_jax.toy.corruption import corrupt, judged_solution
from ovd_jax.toy.graded import (
    edits,
    graded,
    is_right,
    right_prefixes,
    right_score,
    wrong_score,
)

PROBLEMS = ArithmeticTask().problems(0, 200)


@pytest.mark.parametrize(
    ("before", "step", "score"),
    [
        ("(8+3)*1", "12*1", 4),  # 11, off by one
        ("7*2", "#### 16", 4),  # off by two
        ("7*2", "#### 17", 3),  # by three
        ("(9+2)+9", "129+9", 3),  # one number is another
        ("14-3", "14+3", 1),  # nothing done, another sign: 11 is three edits away
        ("(3+4)-(8-5)", "(3+4)+3", 3),  # the right sum, another sign
        ("(3+4)-(8-5)", "7-(8-4)", 4),  # copied with a number that is one off
        ("(3+4)-(8-5)", "9-(8-4)", 2),  # two numbers are wrong
        ("(3+4)-(8-5)", "9*(1+1)", 1),
        ("7*2", "7**2", 0),  # no expression
        ("7**2", "14", 0),  # nothing to go on from
    ],
)
def test_a_wrong_step_is_scored_by_its_distance_from_the_nearest_right_one(
    before, step, score
):
    assert not is_right(before, step)
    assert wrong_score(before, step) == score


def test_every_ready_operation_gives_a_right_step():
    assert list(reductions("(3+4)-(8-5)")) == ["7-(8-5)", "(3+4)-3"]
    assert list(reductions("#### 7")) == ["7"]
    for problem in PROBLEMS:
        for step in reductions(problem.question):
            assert is_right(problem.question, step)


@pytest.mark.parametrize(
    ("chance", "score"),
    [(0.0, 6), (0.89, 6), (0.9, 7), (0.94, 7), (0.95, 8), (31 / 32, 8),
     (0.98, 9), (1.0, 9)],
)  # fmt: skip
def test_a_right_step_is_worth_the_chance_that_it_leaves(chance, score):
    assert right_score(chance) == score


def test_wrong_steps_score_under_five_and_right_ones_over_it():
    rng = random.Random(0)
    for problem in PROBLEMS:
        line = corrupt(next(solve(problem.question)), rng)
        chances = dict.fromkeys(range(9), rng.random())
        (score,) = graded(problem.question, [line], chances)
        assert (score >= 5) == is_right(problem.question, line)


def test_chances_are_asked_for_after_right_lines_that_do_not_answer():
    lines = ["(7*2)-3", "15-3", "12", "#### 12"]
    assert list(right_prefixes("((3+4)*2)-(8-5)", lines)) == [1, 3]
    assert list(right_prefixes("(7*2)-(8-5)", lines[:1])) == [1]
    assert graded("(7*2)-(8-5)", lines, {1: 0.5, 3: 1.0}) == [6, 4, 9, 9]


def test_edits_are_levenshtein_distances():
    assert edits("kitten", "sitting") == 3
    assert edits("", "abc") == edits("abc", "") == 3
    assert edits("abc", "abc") == 0


def test_judged_rows_become_examples_and_a_broken_one_is_named(tmp_path):
    lines, _ = judged_solution(PROBLEMS[0].question, random.Random(3))
    scores = graded(PROBLEMS[0].question, lines, dict.fromkeys(range(9), 1.0))
    row = {"question": PROBLEMS[0].question, "lines": lines, "scores": scores}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    task = ArithmeticTask()
    (example,) = read_judged(str(path), task)
    assert example.pieces[0] == (PROBLEMS[0].question + "=\n", 0.0)
    assert [branch.pieces[1][0] for branch in example.branches[:-1]] == [
        str(score) for score in scores
    ]
    draw = arithmetic_examples(task, judged_share=1.0, judged_data=str(path))
    assert draw(0, 3) == [example] * 3
    path.write_text(json.dumps(row) + '\n{"question": "1+1"}\n', "utf-8")
    with pytest.raises(UserError, match=r"rows.jsonl:2 .*make_judge_data"):
        read_judged(str(path), task)

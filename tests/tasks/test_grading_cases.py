# ruff: noqa: RUF001 full-width punctuation is what Chinese solutions have
"""Fifteen hundred answers, and solutions, with the verdict that a reader gives.

`grading_cases.jsonl` has (answer, gold, 1 or 0, source) a line: golds of MIT- and
Apache-licensed data in other styles, and spoiled; and `hand`, made up here.
`grading_texts.jsonl` has (solution, gold, choices or null, 1 or 0), made up here.
"""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.grading.equality import RIGHT, choice_letter
from ovd_jax.tasks.grading.extract import extract_answer
from ovd_jax.tasks.grading.grader import Grader
from ovd_jax.tasks.math import MathTask

HERE = Path(__file__).parent
CASES = [
    tuple(json.loads(line))
    for line in (HERE / "grading_cases.jsonl").read_text("utf-8").splitlines()
]
TEXTS = [
    tuple(json.loads(line))
    for line in (HERE / "grading_texts.jsonl").read_text("utf-8").splitlines()
]
EVAL = HERE.parents[2] / "shared" / "data" / "math" / "eval"
WRONG = {
    "no_answer", "too_long", "other_text", "other_number", "other_unit",
    "other_choice", "other_values", "other_algebra", "unreadable", "timeout",
    "crashed",
}  # fmt: skip
# Golds whose upstream text is broken; they equal themselves as written and no more.
BROKEN = ("145solution:", "+$ $")


def test_every_case_gets_the_verdict_of_a_reader(grader):
    judged = grader.judge([(answer, gold) for answer, gold, _, _ in CASES])
    wrong = [
        (*case, judgement.reason)
        for case, judgement in zip(CASES, judged, strict=True)
        if judgement.equal != bool(case[2])
    ]
    assert not wrong, wrong
    reasons = {judgement.reason for judgement in judged}
    assert reasons <= {*RIGHT, *WRONG}
    assert {*RIGHT, "other_values", "other_choice", "other_number"} <= reasons


def test_every_solution_gets_the_reward_of_a_reader():
    task = MathTask(data="", seed=0, template="plain")
    problems = [
        Problem("1", "?", gold, "hand", choices=tuple(choices or ()))
        for _, gold, choices, _ in TEXTS
    ]
    grades = task.grade(problems, [case[0] for case in TEXTS])
    wrong = [
        (*case, grade.extracted, grade.reason)
        for case, grade in zip(TEXTS, grades, strict=True)
        if grade.reward != case[3]
    ]
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("answer", "gold", "loose", "strict"),
    [
        ("3.1416", r"\pi", 1.0, 0.0),
        ("0.3333", "1/3", 1.0, 0.0),
        ("12.346", "12.345", 1.0, 0.0),
        ("99999", "100000", 0.0, 0.0),
        ("10001/3", "10000/3", 0.0, 0.0),
        (r"\frac{22}{7}", r"\pi", 0.0, 0.0),
        ("3.14159265359", r"\pi", 1.0, 1.0),
    ],
)
def test_decimals_may_be_off_by_the_tolerance_and_nothing_else_may(
    grader, answer, gold, loose, strict
):
    assert grader.grade([(answer, gold)]) == [loose]
    with Grader(tolerance=1e-8, workers=1) as exact:
        assert exact.grade([(answer, gold)]) == [strict]


def test_the_cases_are_many_of_each_kind():
    assert len(CASES) == len({case[:2] for case in CASES}) >= 500
    verdicts = Counter(case[2] for case in CASES)
    assert min(verdicts.values()) > 300
    sources = {"gsm8k", "svamp", "math500", "mmlu_stem", "olympiadbench", "dsr_sub"}
    assert {case[3] for case in CASES} == {*sources, "math_level3to5", "hand"}


@pytest.mark.parametrize(
    ("text", "choices", "reward"),
    [
        ("So it is (B).\nThe answer is B.", ("1", "2", "3", "4"), 1.0),
        (r"\boxed{\text{(B) } 2}", ("1", "2", "3", "4"), 1.0),
        (r"\boxed{2}", ("1", "2", "3", "4"), 1.0),
        (r"\boxed{3}", ("1", "2", "3", "4"), 0.0),
        ("答案是B。", ("1", "2", "3", "4"), 1.0),
        ("故选：C", ("1", "2", "3", "4"), 0.0),
        ("综上，答案为 B", (), 1.0),
        ("故选：B．", (), 1.0),
        ("答案：（B）", (), 1.0),
        ("It is not A but B, the answer is: A", (), 0.0),
    ],
)
def test_a_choice_is_found_in_a_solution_and_graded(text, choices, reward):
    task = MathTask(data="", seed=0, template="plain")
    problem = Problem("1", "?", "B", "hand", choices=choices)
    (grade,) = task.grade([problem], [text])
    assert grade.reward == reward
    assert grade.reason in ("same_choice", "same_text", "other_choice", "other_number")


def styles(gold: str):
    """The gold as a model may write it."""
    yield f"$ {gold} $."
    yield extract_answer(f"As 7 < 8, \\boxed{{{gold}}}. So 3.")
    yield re.sub(r"\\[dt]?frac", r"\\dfrac", gold)
    if not re.fullmatch(r"[\d,]+", gold):
        yield re.sub(r"([,=+])", r" \1 ", gold)
    if re.fullmatch(r"[A-Za-z '.0-9:]+", gold):
        yield f"\\text{{{gold}}}"


def spoiled(gold: str):
    """Answers near the gold that are wrong."""
    numbers = list(re.finditer(r"(?<![.\d])\d+(?![.\d])", gold))
    for number in numbers[:1] + numbers[1:][-1:]:
        changed = str(int(number[0]) + 1)
        yield gold[: number.start()] + changed + gold[number.end() :]
    if "," in gold:
        yield gold.rsplit(",", 1)[0]
    if re.fullmatch("[A-D]+", gold):
        yield "ABCD"[("ABCD".index(gold[0]) + 1) % 4]
    if re.match(r"[1-9\\(]", gold) and "=" not in gold:
        yield f"2({gold})"


@pytest.mark.slow
@pytest.mark.skipif(not EVAL.is_dir(), reason=f"{EVAL} is not here")
@pytest.mark.parametrize("path", sorted(EVAL.glob("*.jsonl")), ids=lambda p: p.stem)
def test_all_golds_equal_themselves_in_other_styles_and_no_spoiled_ones(grader, path):
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    golds = [g for g in dict.fromkeys(r["answer"] for r in rows)]
    golds = [g for g in golds if not any(part in g for part in BROKEN)]
    pairs = [(answer or "", gold) for gold in golds for answer in styles(gold)]
    judged = grader.judge(pairs)
    assert [p for p, j in zip(pairs, judged, strict=True) if not j.equal] == []
    golds = [gold for gold in golds if "cm^" not in gold]  # units do not decide
    pairs = [(answer, gold) for gold in golds for answer in spoiled(gold)]
    judged = grader.judge(pairs)
    assert [(*p, j.reason) for p, j in zip(pairs, judged, strict=True) if j.equal] == []
    for row in random.Random(0).sample(rows, min(len(rows), 50)):
        if row.get("choices"):
            assert choice_letter(row["answer"], row["choices"])


def test_what_hangs_is_cut_and_no_process_is_left():
    hanging = ["9^{9^{9^9}}", r"\binom{10^9}{5\cdot10^8}", r"\frac{9^{9^{9}}}{7}"]
    with Grader(timeout_s=1.0, workers=2) as grader:
        pairs = [(answer, "2") for answer in hanging] + [(r"\sqrt{4}", "2")]
        reasons = [judgement.reason for judgement in grader.judge(pairs)]
        assert reasons[-1] == "same_algebra"
        assert "timeout" in reasons
        assert set(reasons[:3]) <= {"timeout", "crashed", "unreadable"}
        processes = [w.process for w in grader.workers if w.process]
        assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)

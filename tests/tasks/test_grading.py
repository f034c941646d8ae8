"""Answers are found in text and judged, and no answer can stall or break a run."""

import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ovd_jax.tasks.grading.equality import choice_letter
from ovd_jax.tasks.grading.extract import extract_answer
from ovd_jax.tasks.grading.grader import Grader

DATA = Path(__file__).parents[3] / "shared" / "data" / "math"
FOUND = [
    (r"so \boxed{42}.", "42"),
    (r"\boxed{1} no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed{7} and then \boxed{8 + ", "7"),
    (r"\boxed{x = \boxed{3}}", "3"),
    (r"} stray \boxed{5} { brace", "5"),
    (r"\fbox{6}", "6"),
    (r"\boxed{}, the answer is 9.", "9"),
    ("She pays 5.\n#### 1,234", "1,234"),
    ("#### 3\n#### 4\nmore", "4"),
    ("The answer is 3.5. Check: 3.5 > 3", "3.5"),
    ("**Answer:** 42 dollars\nBye 7", "42 dollars"),
    ("The answer is: $x = 5$ because 6 > 5.", "x = 5"),
    ("The final answer is\n\\[ \\frac{3}{4} \\]\nas 9 said", r"\frac{3}{4}"),
    (r"The answer is \$18.", r"\$18"),
    (r"The answer is all \(n\) over 5. So", r"all \(n\) over 5"),
    ("The answer is (B).", "(B)"),
    ("First 3, then -1,234.5 apples", "-1,234.5"),
    ("16-3 = 13, and 5-7", "7"),
    (r"it is \frac{3}{4} of it", r"\frac{3}{4}"),
    ("about 3/4 or 75%", "75%"),
    ("no idea", None),
    ("", None),
]
SAME = [
    ("42", "42"),
    ("$42$.", "42"),
    ("1,234", "1234"),
    (r"29{,}322", "29322"),
    ("023", "23"),
    ("5.00", "5"),
    ("-.5", r"-\frac12"),
    (r"\dfrac{2}{4}", r"\frac{1}{2}"),
    ("1/2", r"\tfrac{1}{2}"),
    ("0.3333333", "1/3"),
    ("1 1/2", "3/2"),
    (r"3\frac{1}{2}", "3.5"),
    ("50%", "50"),
    (r"50\%", "0.5"),
    ("0.5", r"50 \%"),
    (r"1.39 \times 10^{-10}", "1.39e-10"),
    (r"\$20", "20"),
    ("5 dollars a week", "5"),
    (r"10\text{ cm}^2", "10"),
    ("0.4", r"0.4\mbox{ miles}"),
    (r"8\sqrt{3}", r"8\sqrt{3} \text { square inches}"),
    (r"1+2\mathrm{i}", "2i+1"),
    ("c + b + a", "a + b + c"),
    (r"\dfrac{1}{29,\!322}", "1/29322"),
    ("7th", "7"),
    (r"90^\circ", "90"),
    ("x = 5", "5"),
    ("5", "k=5"),
    (r"\text{Tuesday}", "tuesday"),
    ("2:10 PM", "2:10 P.M."),
    (r"\text{(C)}", "C"),
    ("C. the third", "C"),
    ("A, C and D", "ACD"),
    (r"1010_2", r"1010_{2}"),
    (r"\sqrt{8}", r"2\sqrt2"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\{2, 1\}", r"\{1,2\}"),
    ("2, 1", "1,2"),
    (r"-2, 2", r"\pm 2"),
    (r"(-\infty, 3]", r"x \le 3"),
    (r"x \le 3", r"(-\infty, 3]"),
    (r"\left[1, \frac{3}{2}\right)", "[1, 1.5)"),
    (r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("2x+1", "y=2x+1"),
    (r"\log_2 8", "3"),
    ("3.14159265", r"\pi"),
    (r"2^{10}", "1024"),
]
DIFFERENT = [
    ("43", "42"),
    ("", "42"),
    ("", ""),
    ("1 1/2", "11/2"),
    ("0.33", "1/3"),
    ("41.9999999", "42"),
    ("2e-10", "1e-10"),
    ("0", r"\frac{\sqrt{3}}{2^{98}}"),
    ("0", r"\frac{1}{2^{98}}"),
    ("5 million", "5"),
    ("6", "5,6"),
    ("100100", "100, 100, 1"),
    ("(2,1)", "(1,2)"),
    ("(1,2)", "[1,2]"),
    ("5", "5x"),
    ("5", r"5\mathrm{i}"),
    (r"2\mathrm{e}", r"2"),
    (r"1 \text{ or } 2", "1"),
    ("on", "no"),
    ("neve", r"\text{even}"),
    ("x=6", "x=5"),
    ("x=5", "y=5"),
    ("1010_3", "1010_2"),
    ("D", "C"),
    ("A, C", "ACD"),
    (r"n \text{ where } n+3 \text{ is prime}", r"n \text{ where } n \text{ is prime}"),
    (r"1/0", "1"),
    (r"\frac{1}{0}", r"\infty"),
]
HOSTILE = [
    "9^{9^{9^9}}",
    "(" * 100_000,
    "{" * 900,
    r"\frac{1}{" * 90 + "1" + "}" * 90,
    "9" * 900 + "!",
    "\ud800",
    "\x00\\",
    "1} \\boxed{2",
    r"\binom{10^9}{5\cdot10^8}",
]


def children() -> set[int]:
    path = Path(f"/proc/{os.getpid()}/task")
    return {
        int(child)
        for task in path.iterdir()
        for child in (task / "children").read_text().split()
    }


@pytest.mark.parametrize(("text", "answer"), FOUND)
def test_the_final_answer_is_found(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("piece", ["\\boxed{", "{", "answer is ", "1,", "\\", " ", "$"])
def test_finding_an_answer_takes_linear_time(piece):
    start = time.process_time()
    extract_answer(piece * (1_000_000 // len(piece)))
    assert time.process_time() - start < 3


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_equal_answers_score_one(grader, answer, gold):
    assert grader.grade([(answer, gold)]) == [1.0]


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_other_answers_score_zero(grader, answer, gold):
    assert grader.grade([(answer, gold)]) == [0.0]


def test_scores_keep_the_order_of_repeated_pairs(grader):
    pairs = [("1", "1"), ("2", "1"), ("1", "1"), (r"\sqrt4", "2")]
    assert grader.grade(pairs) == [1.0, 0.0, 1.0, 1.0]
    assert grader.grade([]) == []


@pytest.mark.slow
def test_hostile_answers_cost_seconds_and_score_zero():
    with Grader(timeout_s=0.5) as grader:
        grader.grade([(r"\sqrt4", "2")])
        start = time.perf_counter()
        for answer in HOSTILE:
            assert grader.grade([(answer, "2")]) == [0.0]
        assert time.perf_counter() - start < 4 * len(HOSTILE)  # mostly restarts
        assert grader.grade([(r"\sqrt4", "2")]) == [1.0]


@pytest.mark.parametrize(
    "piece", ["1", "-1,", "5 cm ", "A, ", "\\text{a}", "e1", "{,}"]
)
def test_comparing_without_the_worker_takes_milliseconds(piece):
    grader = Grader()
    start = time.process_time()
    assert grader.grade([(piece * (999 // len(piece)), "Tuesday")]) == [0.0]
    assert time.process_time() - start < 0.5
    assert all(w.process is None for w in grader.workers)


def test_a_dead_worker_is_replaced():
    with Grader(timeout_s=60.0) as grader:
        grader.grade([(r"\sqrt4", "2")])
        grader.workers[0].process.kill()
        grader.workers[0].process.wait()
        assert grader.grade([(r"\sqrt4", "2")]) == [1.0]


def test_the_worker_starts_late_and_leaves_with_its_grader():
    before = children()
    grader = Grader(timeout_s=60.0)
    assert grader.grade([("1.0", "1"), ("yes", "no")]) == [1.0, 0.0]
    assert children() == before
    grader.grade([(r"\sqrt4", "2")])
    (worker,) = children() - before
    grader.close()
    grader.close()
    assert children() == before
    assert grader.grade([(r"\sqrt9", "3")]) == [1.0]
    (worker,) = children() - before
    del grader
    gc.collect()
    assert worker not in children()


def test_even_a_busy_worker_does_not_outlive_a_killed_program():
    code = (
        "import os, signal, threading\n"
        "from ovd_jax.tasks.grading.grader import Grader\n"
        "grader = Grader(timeout_s=1.0); grader.grade([(r'\\sqrt4', '2')])\n"
        "print(grader.workers[0].process.pid, flush=True)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
        "grader.grade([('9^{9^{9^9}}', '2')])"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    program = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    worker = Path(f"/proc/{int(program.stdout)}/cmdline")
    deadline = time.monotonic() + 10
    while worker.exists() and worker.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.exists() or not worker.read_bytes()  # a zombie has no cmdline


def test_threads_may_share_a_grader(grader):
    verdicts = []

    def grade():
        verdicts.extend(grader.grade([(r"\sqrt{16}", "4"), (r"\sqrt{16}", "5")]))

    threads = [threading.Thread(target=grade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [1.0, 0.0] * 4


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        (r"\text{(B)}", "B"),
        ("B. $4$", "B"),
        ("(C) whatever", "C"),
        ("4", "B"),
        ("A dog", "C"),
        ("E", None),
        ("", None),
    ],
)
def test_a_choice_is_named_by_letter_or_text(answer, letter):
    assert choice_letter(answer, ("3", "$4$", "A dog", "none")) == letter


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")
def test_golds_equal_themselves_in_other_styles(grader):
    golds = []
    for path in sorted(DATA.glob("*/*.jsonl")):
        rows = path.read_text("utf-8").splitlines()
        golds += [json.loads(r)["answer"] for r in random.Random(0).sample(rows, 2)]
    styled = [f"$ {gold.replace('frac', 'dfrac')} $." for gold in golds]
    assert grader.grade(list(zip(golds, golds, strict=True))) == [1.0] * len(golds)
    assert grader.grade(list(zip(styled, golds, strict=True))) == [1.0] * len(golds)

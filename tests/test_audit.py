"""A judge measured against known mistakes, with numbers worked by hand."""

import dataclasses
import json

import pytest
from fakes import FakeTeacher, exact, score_of

from ovd_jax import audit
from ovd_jax.cli import flags
from ovd_jax.evaluation import known_steps
from ovd_jax.evaluation.judged import WRONG, Solution, load_solutions
from ovd_jax.tasks.arithmetic import ArithmeticTask, judge_steps
from ovd_jax.teacher.base import Score
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.wiring.task import make_task


def judged(first_error, *scores, whole=5.0):
    steps = tuple(f"step {i}\n" for i in range(len(scores)))
    solution = Solution("id", "q", steps, first_error)
    asked = tuple(score_of(x) for x in scores[: solution.known])
    return known_steps.Judged(solution, asked, score_of(whole))


ROWS = [
    judged(-1, 9, 8, whole=9),
    judged(-1, 4, 9, whole=7),
    judged(1, 9, 2, 0, whole=2),
    judged(0, 6, 1, whole=7),
]


def test_f1_is_the_harmonic_mean_of_both_kinds_of_solutions():
    by_threshold = {
        row["threshold"]: row for row in known_steps.measures(ROWS, 10)["thresholds"]
    }
    assert by_threshold[3] == {
        "threshold": 3, "f1": pytest.approx(2 * 1.0 * 0.5 / 1.5),
        "found_in_wrong": 0.5, "none_in_right": 1.0,
    }  # fmt: skip
    assert by_threshold[7]["found_in_wrong"] == 1.0  # 9 2, and 6
    assert by_threshold[7]["none_in_right"] == 0.5  # 4 is under it
    assert by_threshold[10]["f1"] == 0.0  # nothing is left alone
    assert len(by_threshold) == 10


def test_steps_after_the_first_mistake_count_nowhere():
    found = known_steps.measures(ROWS, 10)
    assert found["steps"] == 2 + 2 + 2 + 1
    right, wrong = [9, 8, 4, 9, 9], [2, 6]
    wins = sum(r > w for r in right for w in wrong)
    assert found["auc_steps"] == wins / 10
    assert found["auc_solutions"] == (1 + 1 + 1 + 0.5) / 4
    assert found["mean_right"] == sum(right) / 5
    assert (found["solutions"], found["wrong_solutions"]) == (4, 2)


def test_thresholds_are_named_as_the_config_has_them():
    names = PROMPTS["one_to_ten"].thresholds()
    found, plain = known_steps.measures(ROWS, 10, names), known_steps.measures(ROWS, 10)
    assert found["recommended_threshold"] == plain["recommended_threshold"] + 1
    assert [row["threshold"] for row in found["thresholds"]] == list(range(2, 12))
    assert [row["f1"] for row in found["thresholds"]] == [
        row["f1"] for row in plain["thresholds"]
    ]


def test_the_lowest_of_the_best_thresholds_is_recommended():
    found = known_steps.measures(ROWS, 10)
    assert found["recommended_threshold"] == 3  # 3 and 4 do equally well, 7 as well
    assert found["f1"] == pytest.approx(2 / 3)


def test_calibration_compares_what_scores_claim_with_what_is_so():
    steps = [(9.0, True), (9.0, True), (8.5, False), (0.0, False), (4.5, True)]
    bins = known_steps.calibration(steps, 10)
    assert [row["count"] for row in bins] == [1, 1, 3]
    assert [row["right"] for row in bins] == [0.0, 1.0, pytest.approx(2 / 3)]
    assert [row["claimed"] for row in bins] == pytest.approx([0, 0.5, 26.5 / 27])


def test_a_perfect_judge_of_arithmetic_is_measured_as_one():
    solutions = load_solutions("", ArithmeticTask(), count=60, seed=0)
    again = load_solutions("", ArithmeticTask(), count=60, seed=0)
    assert solutions == again != load_solutions("", ArithmeticTask(), count=60, seed=1)
    for each in solutions:
        scores = judge_steps(each.question, [step.strip() for step in each.steps])
        wrong = [score <= WRONG for score in scores]
        assert each.first_error == (wrong.index(True) if any(wrong) else -1)
    found = known_steps.measures(
        known_steps.judge(FakeTeacher(exact), solutions, seed=0), 10
    )
    assert found["f1"] == found["auc_steps"] == 1.0
    assert found["recommended_threshold"] == WRONG + 1
    assert 10 < found["wrong_solutions"] < 50


def test_a_judge_that_praise_moves_is_told_from_one_that_it_does_not():
    rows = known_steps.judge(
        FakeTeacher(lambda *_: 3), [x.solution for x in ROWS], seed=0
    )
    assert known_steps.praise_lift(FakeTeacher(lambda *_: 3), rows, seed=0) == 0.0
    gullible = FakeTeacher(lambda r, _: 8 if "perfect" in r.text else 3)
    assert known_steps.praise_lift(gullible, rows, seed=0) == 5.0


def test_unanswered_questions_are_left_out():
    teacher = FakeTeacher(lambda r, _: None if r.text == "step 1\n" else 5)
    rows = known_steps.judge(teacher, [x.solution for x in ROWS], seed=0)
    assert [x.solution.first_error for x in rows] == [0]


GOOD = {"id": "a", "question": "q", "steps": ["one", " two\n"], "first_error": 1}


def test_rows_are_sampled_evenly_from_several_files(tmp_path):
    for name in "ab":
        lines = [json.dumps(GOOD | {"id": f"{name}{i}"}) for i in range(9)]
        (tmp_path / name).write_text("\n".join(lines))
    data = f"{tmp_path}/a, {tmp_path}/b"
    rows = load_solutions(data, None, count=6, seed=0)
    assert [row.id[0] for row in rows] == ["a"] * 3 + ["b"] * 3
    assert rows[0].steps == ("one\n\n", "two\n\n")
    assert rows == load_solutions(data, None, count=6, seed=0)
    (tmp_path / "c").write_text(json.dumps({**GOOD, "first_error": -1}))
    assert load_solutions(f"{tmp_path}/c", None, count=6, seed=0)[0].known == 2
    assert len(load_solutions(data, None, count=0, seed=0)) == 18
    with pytest.raises(ValueError, match=r"takes all rows of config\.data"):
        load_solutions("", ArithmeticTask(), count=0, seed=0)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q"}, GOOD | {"steps": []}, GOOD | {"steps": [7]},
        GOOD | {"first_error": 2}, GOOD | {"first_error": "1"}, [],
        GOOD | {"question": 1},
    ],
)  # fmt: skip
def test_a_row_of_another_form_is_an_error_that_names_its_line(row, tmp_path):
    (tmp_path / "rows").write_text(json.dumps(GOOD) + "\n" + json.dumps(row))
    with pytest.raises(ValueError, match="rows:2"):
        load_solutions(f"{tmp_path}/rows", None, count=9, seed=0)


def test_a_file_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no file 'nowhere'"):
        load_solutions("nowhere", None, count=9, seed=0)


def test_the_report_is_written_and_printed(tmp_path, capsys):
    config = flags.load_file("configs/teacher_audit.py")
    with config.unlocked():
        config.run_dir = str(tmp_path)
    assert isinstance(make_task(config), ArithmeticTask)
    half = Score(4.5, (0.5, *[0.0] * 8, 0.5), 0.0)
    rows = [*ROWS, dataclasses.replace(ROWS[0], steps=(half, half))]
    audit.report(config, rows, known_steps.measures(rows, 10), 1.0)
    written = json.loads((tmp_path / "audit.json").read_text())
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert written["recommended_threshold"] == summary["recommended_threshold"] == 3
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == 9
    assert (tmp_path / "audit.png").stat().st_size > 1000


def test_a_judge_that_guesses_is_said_to_be_none(tmp_path, caplog):
    config = flags.load_file("configs/teacher_audit.py")
    with config.unlocked():
        config.run_dir = str(tmp_path)
    rows = [judged(-1, 5, 5), judged(1, 5, 5)]
    audit.report(config, rows, known_steps.measures(rows, 10), 1.0)
    assert "no threshold makes it a judge" in caplog.text

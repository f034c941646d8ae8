"""Rows of a user's own files: in any known columns, few of them bad, none lost in
silence."""

import json
import warnings

import pytest

from ovd_jax import jsonl
from ovd_jax.cli import flags
from ovd_jax.evaluation.judged import read_solutions
from ovd_jax.tasks.data.examples import file_examples
from ovd_jax.tasks.data.rows import load_problems
from ovd_jax.tasks.math import MathTask

GSM8K = {"question": "1000+2?", "answer": "It is <<1000+2=1002>>1002.\n#### 1,002"}
MATH = {"problem": "Half?", "solution": r"So \boxed\frac12.", "level": "Level 1"}
SEARCH_R1 = {"id": "q0", "question": "Where?", "golden_answers": ["Lima", "LIM"]}


def write(path, rows, end="\n"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + end, "utf-8")
    return str(path)


CHAT = [{"role": "system", "content": "x"}, {"role": "user", "content": "2?"}]
TARGETS = {"style": "rule", "ground_truth": {"target": ["2", "two"]}}


@pytest.mark.parametrize(
    ("row", "question", "golds"),
    [
        (GSM8K, "1000+2?", ("1002",)),
        (MATH, "Half?", (r"\frac12",)),
        (SEARCH_R1, "Where?", ("Lima", "LIM")),
        ({"question": "2?", "answer": 2}, "2?", ("2",)),
        ({"question": "2?", "answer": 2.0}, "2?", ("2",)),
        ({"question": "2?", "answer": -2.5}, "2?", ("-2.5",)),
        ({"problem": "2?", "answer": "2"}, "2?", ("2",)),
        ({"question": "2?", "answers": [2, "two"]}, "2?", ("2", "two")),
        ({"Question": "2?", "Answer": "2", "Body": "Two."}, "Two. 2?", ("2",)),
        ({"query": "2?", "response": "So 2.\nThe answer is: 2"}, "2?", ("2",)),
        ({"problem": "2?", "expected_answer": "2"}, "2?", ("2",)),
        ({"problem": "2?", "generated_solution": r"\boxed{2}"}, "2?", ("2",)),
        ({"prompt": "2?", "ground_truth": "2"}, "2?", ("2",)),
        ({"prompt": CHAT, "reward_model": {"ground_truth": "2"}}, "2?", ("2",)),
        ({"prompt": CHAT, "reward_model": TARGETS}, "2?", ("2", "two")),
        ({"instruction": "Count.", "input": "2?", "answer": 2}, "Count.\n2?", ("2",)),
        ({"instruction": "2?", "input": "", "answer": 2}, "2?", ("2",)),
    ],
)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_file_takes_the_columns_of_known_sets(tmp_path, row, question, golds, split):
    data = write(tmp_path / "own.jsonl", [row])
    (problem,) = load_problems(data, split)
    assert (problem.question, problem.golds) == (question, golds)
    assert problem.source == "own"


def test_rows_without_an_id_are_told_apart_by_their_line(tmp_path):
    data = write(tmp_path / "own.jsonl", [GSM8K, "", MATH, MATH | {"id": 7}])
    ids = [problem.id for problem in load_problems(data, "train")]
    assert ids == ["own/1", "own/3", "7"]


def test_choices_may_be_numbers_and_answers_their_index(tmp_path):
    row = {"question": "2+2?", "choices": [3, 4.0, 5], "answer": 1}
    (problem,) = load_problems(write(tmp_path / "own.jsonl", [row]), "eval")
    assert (problem.choices, problem.answer) == (("3", "4", "5"), "B")


@pytest.mark.parametrize(
    "row",
    [
        {"options": ["3", "4", "5"], "answer": "B", "answer_index": 1},  # MMLU-Pro
        {"options": ["A)3", "B)4", "C)5"], "rationale": "x", "correct": "B"},  # AQuA
        {"options": ["(A) 3", "(B) 4", "(C) 5"], "answer": "B"},
    ],
)
def test_options_may_be_the_choices(tmp_path, row):
    row = {"question": "2+2?"} | row
    (problem,) = load_problems(write(tmp_path / "own.jsonl", [row]), "eval")
    assert (problem.choices, problem.answer) == (("3", "4", "5"), "B")


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[]",
        '{"question": "?"}',
        '{"question": "?", "answer": NaN}',
        '{"question": "?", "answer": Infinity}',
        '{"question": null, "answer": 2}',
        '{"question": "?", "answer": ""}',
        '{"problem": "?", "solution": "no box"}',
        '{"question": "?", "answer": "A", "choices": "AB"}',
        '{"question": "?", "answer": "E", "choices": ["1", "2"]}',
        '{"question": "\\ud800", "answer": "2"}',
    ],
)
def test_one_bad_row_in_a_hundred_is_skipped_and_counted(tmp_path, bad):
    good = [{"question": f"{n}?", "answer": n} for n in range(99)]
    data = write(tmp_path / "own.jsonl", [*good[:50], bad, *good[50:]])
    with pytest.warns(UserWarning, match=r"1 of (100|99) rows .* skipped.*own.jsonl"):
        task = MathTask(data=data, seed=0, template="plain")
    assert len({problem.id for problem in task.problems(0, 99)}) == 90
    assert len(task.held_out(99)) == 9
    data = write(tmp_path / "own.jsonl", [*good, bad, bad])
    with pytest.raises(ValueError, match=r"own.jsonl.*2 of (101|100) rows .* are bad"):
        MathTask(data=data, seed=0, template="plain")


def test_rows_that_are_not_used_are_counted(tmp_path):
    rows = [{"question": f"{n}?", "answer": n, "split": "train"} for n in range(3)]
    rows += [{"question": f"{n}?", "answer": n, "split": "test"} for n in range(2)]
    data = write(tmp_path / "own.jsonl", rows)
    with pytest.warns(UserWarning, match=r"3 rows are used .* 2 of split 'eval'"):
        assert len(load_problems(data, "train")) == 3
    with pytest.warns(UserWarning, match=r"2 rows are used .* 3 of split 'train'"):
        assert len(load_problems(data, "eval")) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_problems(write(tmp_path / "b.jsonl", [GSM8K, MATH]), "train")


def test_a_file_given_alone_has_rows_of_it_held_out(tmp_path, capsys):
    data = write(tmp_path / "own.jsonl", [GSM8K, MATH, SEARCH_R1])

    def held_out(*changes):
        argv = ["train", "--config=configs/math.py", *changes]
        config, _ = flags.parse(argv, doc="", default="configs/default.py")
        return config.held_out_data

    assert held_out(f"--config.data={data}") == ""
    assert "held out for evaluation in place of HuggingFace" in capsys.readouterr().err
    assert held_out("--config.data", data) == ""
    other = f"--config.held_out_data={data}"
    assert held_out(f"--config.data={data}", other) == data
    assert held_out() == held_out("--config.data=openai/gsm8k:main") != ""


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n \r\n\t\n"])
def test_one_reader_reads_all_files_and_passes_over_blank_lines(tmp_path, end):
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d"}]
    data = write(tmp_path / "a.jsonl", ["", rows[0], " ", rows[1]], end)
    assert [where for where, _ in jsonl.read_jsonl(data)] == [f"{data}:2", f"{data}:4"]
    assert len(file_examples(data, seed=0)(0, 2)) == 2
    judged = {"question": "?", "steps": ["a"], "first_error": -1}
    solutions = read_solutions(write(tmp_path / "b.jsonl", [judged], end))
    assert [solution.steps for solution in solutions] == [("a\n\n",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{', r"a.jsonl:2 is not a JSON object"),
        (b"[1]", r"a.jsonl:1 is a JSON list"),
        (b'"\xff"', r"a.jsonl:1 is not a JSON object in UTF-8"),
        (b"[" * 10**5, r"a.jsonl:1 is not a JSON object"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"a.jsonl:1 is not a JSON object"),
        (b'{"a": "' + b"x" * 70 * 2**20, r"a.jsonl:1 has more than 67,108,864 bytes"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(jsonl.read_jsonl(path))


def test_numbers_that_are_none_are_no_values(tmp_path):
    path = write(tmp_path / "a.jsonl", ['{"a": NaN, "b": -Infinity, "c": 1e999}'])
    assert [row for _, row in jsonl.read_jsonl(path)] == [
        {"a": None, "b": None, "c": None}
    ]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"There is no file .*nothing.jsonl"):
        list(jsonl.read_jsonl(tmp_path / "nothing.jsonl"))

"""Rows of public data sets, in the columns that they have there."""

import pytest

from ovd_jax.tasks.data.columns import to_row
from ovd_jax.tasks.data.hub import is_hub_name
from ovd_jax.tasks.data.sets import MATH_SETS

ROWS = [  # set, row, question, answer
    ("gsm8k", {"question": "1000+2?", "answer": "<<1000+2=1002>>1002.\n#### 1,002"},
     "1000+2?", "1002"),
    ("math500", {"problem": "Half?", "solution": r"\boxed{1}", "answer": r"\frac12"},
     "Half?", r"\frac12"),
    ("math", {"problem": "Half?", "solution": r"So \boxed{\frac12}."},
     "Half?", r"\frac12"),
    ("svamp", {"Body": "He has 3 pens", "Question": "How many?", "Answer": 3.0,
               "Equation": "( 3 )", "Type": "x"}, "He has 3 pens. How many?", "3"),
    ("asdiv", {"body": "She has 9.", "question": "How many?", "answer": "9 (apples)",
               "formula": "9=9"}, "She has 9. How many?", "9"),
    ("mawps", {"input": "2 and 3?", "target": 5.0}, "2 and 3?", "5"),
    ("tabmwp", {"question": "Sum?", "table": "a | 1", "table_title": "T",
                "answer": "1/2", "choices": None}, "Table (T):\na | 1\n\nSum?", "1/2"),
    ("minerva_math", {"question": "c?", "answer": "3e8"}, "c?", "3e8"),
    ("olympiadbench", {"question": "n?", "final_answer": ["$2$"], "solution": ["s"]},
     "n?", "2"),
    ("sat_math", {"Question": "x?", "options": "A) 1 B) 2", "Answer": "B"},
     "x?\nA) 1 B) 2", "B"),
    ("mmlu_stem", {"question": "x?", "choices": ["a", "b", "c", "d"], "answer": 2},
     "x?", "C"),
    ("gaokao2024_mix", {"question": "x?", "choice_answer": "", "answer": "$24,112$"},
     "x?", "24,112"),
    ("gaokao2024_mix", {"question": "x?", "choice_answer": "B", "answer": "long"},
     "x?", "B"),
    ("aime24", {"ID": "1", "problem": "x?", "answer": 33}, "x?", "33"),
    ("none", {"question": "zero?", "answer": 0}, "zero?", "0"),
    ("math", {"problem": "Two?", "solution": r"So $\boxed 2$."}, "Two?", "2"),
    ("math", {"problem": "Half?", "solution": r"So $\boxed\frac12$."},
     "Half?", r"\frac12"),
    ("math", {"problem": "x?", "solution": r"\framebox{3}"}, "x?", "3"),
    ("numbers", {"question": "x?", "answer": 0.25}, "x?", "0.25"),
    ("strategy_qa", {"question": "x?", "answer": True}, "x?", "yes"),
    ("arc", {"question": "x?", "answerKey": "B",
             "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, "x?", "B"),
    ("search_r1", {"question": "x?", "golden_answers": ["Lima"]}, "x?", "Lima"),
    ("squad", {"question": "x?", "answers": {"text": ["Lima"], "answer_start": [1]}},
     "x?", "Lima"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "question", "answer"), ROWS)
def test_question_and_answer_are_found(name, row, question, answer):
    found = to_row(row, "x:1")
    assert (found["question"], found["answer"]) == (question, answer)


def test_a_row_with_several_answers_of_asdiv_is_left_out():
    row = {"body": "b", "question": "q", "answer": "1 (cat); 2 (dogs)", "formula": ""}
    assert to_row(row, "x:1") is None


def test_choices_stay_with_their_question():
    row = {"question": "x?", "choices": ["1", 2], "answer": 0}
    assert to_row(row, "x:1")["choices"] == ["1", "2"]


def test_every_set_by_name_is_one_that_can_be_asked_for():
    assert all(map(is_hub_name, MATH_SETS.values()))
    assert not is_hub_name("rows.jsonl")
    assert not is_hub_name("data/rows.jsonl")
    assert is_hub_name("owner/name:config[train+test]")

"""Rows of data sets in their own columns, of files and of the hub alike, as rows of our
schema: GSM8K, MATH, SVAMP, ASDiv, MAWPS, TabMWP, OlympiadBench, MMLU, ARC, GAIA,
MMLU-Pro, AQuA, NQ-open, TriviaQA, PopQA, Musique, the copies of FlashRAG and Search-R1,
and files for other trainers, such as verl's."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.jsonl import as_text
from ovd_jax.tasks.grading.extract import after_phrase, last_boxed

SPLITS = {"train": ("train",), "eval": ("test", "validation", "dev")}
CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")  # GSM8K's: 48/2 = <<48/2=24>>24
UNIT = re.compile(r"\s*\([^()]*\)")  # ASDiv's: 9 (apples)
IDS = ("id", "_id", "ID", "task_id", "unique_id", "qid", "problem_id")
QUESTIONS = (
    "question", "problem", "Question", "Problem", "input", "query", "prompt",
    "instruction",
)  # fmt: skip
ANSWERS = (
    "choice_answer", "answer", "Answer", "final_answer", "target", "Final answer",
    "answerKey", "expected_answer", "ground_truth", "gold_answer", "reference_answer",
    "correct_answer", "short_answer", "gold", "correct",
)  # fmt: skip
ALIASES = ("answers", "answer", "golden_answers", "possible_answers", "answer_aliases")
SOLUTIONS = (
    "solution", "Equation", "formula", "rationale", "response", "generated_solution",
)  # fmt: skip
LETTERED = re.compile(r"^\(?([A-J])[).:]\s*")  # AQuA's choices: A)21


def to_row(row: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """Question, answer, solution and choices out of a row's columns, with its id,
    source and split if it has them; None for a row with several questions' answers.
    Raises UserError, naming `where`, if there is no question or no answer."""
    row = rewarded(row)
    choices = choices_of(row, where)
    solution = first(row, SOLUTIONS) or ""
    if isinstance(solution, list):
        solution = "\n".join(map(str, solution))
    answers = aliases(row, where)
    answer = answers[0] if answers else answer_of(row, choices)
    if isinstance(answer, str) and "####" in answer:  # GSM8K
        solution, _, answer = CALCULATOR_MARK.sub("", answer).rpartition("####")
        answer = answer.replace(",", "")
    elif isinstance(answer, str) and "formula" in row:  # ASDiv
        if ";" in answer:
            return None
        answer = UNIT.sub("", answer)
    elif answer is None and isinstance(solution, str):  # MATH; MetaMathQA
        answer = last_boxed(solution) or after_phrase(solution)
    question = question_of(row)
    for name, value in (("question", question), ("answer", answer)):
        if value in (None, "") and not (name == "answer" and answers):
            raise UserError(
                f"{where}: no {name} was found in the columns {sorted(row)}; call the "
                f"column with it {name!r} in a JSONL file."
            )
    if isinstance(answer, str):
        answer = answer.strip().strip("$") or answer
    found = {"question": question, "answer": answer}
    found["solution"] = solution.strip() if isinstance(solution, str) else solution
    if len(answers) > 1 or "answers" in row:
        found["answers"] = answers
    known = {"id": first(row, IDS)} | {key: row.get(key) for key in ("source", "split")}
    if "Final answer" in row:
        known |= {"source": "gaia", "split": "eval"}  # though its file is one of levels
    found |= {key: as_text(value) for key, value in known.items() if value is not None}
    return found | ({"choices": choices} if choices else {})


def rewarded(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of verl's with its answer, or answers, in a column of their own."""
    reward = row.get("reward_model")
    truth = reward.get("ground_truth") if isinstance(reward, Mapping) else None
    if isinstance(truth, Mapping):  # Search-R1's
        truth = truth.get("target")
    if is_nothing(truth):
        return row
    key = "golden_answers" if isinstance(truth, list) else "ground_truth"
    return {key: truth, **row}


def answer_of(row: Mapping[str, Any], choices: Sequence[Any]) -> Any:
    """The one answer of a row; the letter where it is a choice's number."""
    answer: Any = first(row, ANSWERS)
    if isinstance(answer, list):  # OlympiadBench: the first is asked for
        answer = answer[0] if answer else None
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int):
        return as_text(answer)
    if 0 <= answer < len(choices):
        return chr(ord("A") + answer)
    return as_text(answer)


def choices_of(row: Mapping[str, Any], where: str) -> list[Any]:
    """The choices of a row, as texts; ARC has them beside their letters."""
    choices = row.get("choices")
    if isinstance(choices, Mapping):
        choices = choices.get("text")
    if choices is None and isinstance(row.get("options"), list):  # MMLU-Pro; AQuA
        choices = row["options"]
        letters = [
            found and found[1] for found in map(LETTERED.match, map(str, choices))
        ]
        if letters == list("ABCDEFGHIJ"[: len(choices)]):
            choices = [LETTERED.sub("", choice) for choice in choices]
    if choices is not None and not isinstance(choices, list):
        raise UserError(f"{where}: choices is {choices!r}; write a list of texts.")
    return [as_text(choice) for choice in choices or ()]


def aliases(row: Mapping[str, Any], where: str) -> list[Any]:
    """All right answers in the columns of a question answering set."""
    found = []
    for key in ALIASES:
        value = row.get(key)
        if key == "possible_answers" and isinstance(value, str):
            value = _parsed(value, where)
        if isinstance(value, Mapping):  # TriviaQA; SQuAD
            value = [value.get("value"), *value.get("aliases", value.get("text", ()))]
        if key == "answers" and not isinstance(value, list | None):
            raise UserError(f"{where}: answers is {value!r}; write a list of texts.")
        found += value if isinstance(value, list) else []
    own = row.get("answer")
    if found and isinstance(own, str) and "answers" not in row:  # Musique's
        found.insert(0, own)
    texts = [as_text(answer) for answer in found if answer is not None]
    texts = [text.strip() if isinstance(text, str) else text for text in texts]
    if "answers" in row:
        return texts
    return list(dict.fromkeys(text for text in texts if text))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: {text[:60]!r} is no list of answers.") from None


def question_of(row: Mapping[str, Any]) -> Any:
    """The question with its story, table and options."""
    question = first(row, QUESTIONS)
    if isinstance(question, list):  # the messages of a chat
        said = [m.get("content") for m in question if isinstance(m, Mapping)]
        question = said[-1] if said else question
    if not isinstance(question, str):
        return question
    question = question.strip() or question
    story = str(first(row, ("Body", "body")) or "").strip()
    if story:
        stop = "" if story.endswith((".", "?", "!")) else "."
        question = f"{story}{stop} {question}"
    if row.get("table"):  # TabMWP
        title = f" ({row['table_title']})" if row.get("table_title") else ""
        question = f"Table{title}:\n{row['table']}\n\n{question}"
    if isinstance(row.get("options"), str):  # SAT
        question += f"\n{row['options'].strip()}"
    if "instruction" in row and question != row["instruction"]:  # Alpaca's
        question = f"{row['instruction']}\n{question}"
    return question


def first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of some columns that is not empty."""
    values = (row.get(name) for name in names)
    return next((v for v in values if not is_nothing(v)), None)


def is_nothing(value: Any) -> bool:
    """True for an empty cell, including NaN."""
    return value is None or value in ("", []) or value != value

"""Rows of data sets on the hub, in the usual columns, as rows of our own schema."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.tasks.answers import last_boxed

NAME = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:\[(?P<split>[\w+]+)\])?"
)
URL = re.compile(r"https?://\S+\.jsonl?")
SPLITS = {"train": ("train",), "eval": ("test", "validation", "dev")}
CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")  # GSM8K's: 48/2 = <<48/2=24>>24
UNIT = re.compile(r"\s*\([^()]*\)")  # ASDiv's: 9 (apples)
QUESTIONS = ("question", "problem", "Question", "input")
ANSWERS = ("choice_answer", "answer", "Answer", "final_answer", "target")
ALIASES = ("answer", "golden_answers", "possible_answers", "answer_aliases")
SOLUTIONS = ("solution", "Equation", "formula")


def is_hub_name(data: str) -> bool:
    """Whether `data` is a hub name, the URL of a JSONL file, or a local folder."""
    if URL.fullmatch(data) or (data and Path(data).is_dir()):
        return True
    return bool(NAME.fullmatch(data)) and not data.endswith((".json", ".jsonl"))


def hub_rows(data: str, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split, "train" or "eval", of "owner/name" or "owner/name:config".

    The "test" split (or else "validation") is "eval", unless splits are named as in
    "owner/name[train+test]". Rows that cannot be graded as one answer are left out:
    ASDiv's with several.
    """
    rows = load(data, split)
    for number, row in enumerate(rows):
        found = to_row(row)
        if found is None:
            continue
        if not found["question"] or not found["answer"].strip():
            raise UserError(
                f"{data}, row {number} of {split!r} has the columns {sorted(row)}, in "
                "which no question or no answer was found; write the rows to a JSONL "
                "file and pass that."
            )
        source = data.partition("[")[0].partition(":")[0] if "//" not in data else data
        name = f"{source}/{split}/{number}"
        yield found | {"id": name, "source": source, "split": split}


def to_row(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Question, answer, solution and choices out of a row's columns; None for a row
    that is left out."""
    answer = first(row, ANSWERS)
    choices = row.get("choices")
    choices = [str(choice) for choice in choices] if isinstance(choices, list) else []
    solution = str(first(row, SOLUTIONS) or "")
    answers = aliases(row)
    if answers:
        answer = answers[0]
    if isinstance(answer, list):  # OlympiadBench: the first is asked for
        answer = answer[0] if answer else ""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, int) and 0 <= answer < len(choices):
        answer = chr(ord("A") + answer)
    answer = "" if answer is None else str(answer)
    if "####" in answer:  # GSM8K
        solution, _, answer = CALCULATOR_MARK.sub("", answer).rpartition("####")
        answer = answer.replace(",", "")
    elif "formula" in row:  # ASDiv
        if ";" in answer:
            return None
        answer = UNIT.sub("", answer)
    elif not answer:  # MATH
        answer = last_boxed(solution) or ""
    found = {"question": question_of(row), "answer": answer.strip().strip("$")}
    found |= {"solution": solution.strip()}
    if len(answers) > 1:
        found["answers"] = answers
    return found | ({"choices": choices} if choices else {})


def aliases(row: Mapping[str, Any]) -> list[str]:
    """All that the columns of a known question answering set call right: NQ-open,
    TriviaQA, FlashRAG's copies, PopQA, Musique."""
    found = []
    for key in ALIASES:
        value = row.get(key)
        if key == "possible_answers" and isinstance(value, str):
            value = json.loads(value)
        if isinstance(value, dict):
            value = [value.get("value"), *value.get("aliases", ())]
        found += value if isinstance(value, list) else []
    if found and isinstance(row.get("answer"), str):  # Musique's own comes first
        found.insert(0, row["answer"])
    texts = [str(answer).strip() for answer in found if answer is not None]
    return list(dict.fromkeys(text for text in texts if text))


def question_of(row: Mapping[str, Any]) -> str:
    """The question with what belongs to it: the story, the table, the options."""
    question = str(first(row, QUESTIONS) or "").strip()
    story = str(first(row, ("Body", "body")) or "").strip()
    if story:
        stop = "" if story.endswith((".", "?", "!")) else "."
        question = f"{story}{stop} {question}"
    if row.get("table"):  # TabMWP
        title = f" ({row['table_title']})" if row.get("table_title") else ""
        question = f"Table{title}:\n{row['table']}\n\n{question}"
    if isinstance(row.get("options"), str):  # SAT
        question += f"\n{row['options'].strip()}"
    return question


def first(row: Mapping[str, Any], names) -> Any:
    """The first of some columns that holds something."""
    held = (row[name] for name in names if row.get(name) not in (None, "", []))
    return next(held, None)


def load(data: str, split: str) -> Any:
    """What the library `datasets` loads, with one kind of error."""
    remedy = "pass the path of a JSONL file instead"
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{data!r} is on the hub, and reading it needs the library `datasets` "
            f"({error}): pip install datasets, or {remedy}."
        ) from None
    try:
        if URL.fullmatch(data):
            return datasets.load_dataset("json", data_files=data, split="train")
        parts = {"name": data, "config": None, "split": None}
        if not Path(data).is_dir():
            parts = NAME.fullmatch(data).groupdict()
        return load_split(datasets, **parts, use=split)
    except Exception as error:  # `datasets` raises a dozen unrelated types
        raise UserError(
            f"The hub data set {data!r} could not be read: {error}. Check its name and "
            f"the connection, or {remedy}."
        ) from error


def load_split(datasets, name: str, config: str | None, split: str | None, use: str):
    """The split that is asked for, or the one that serves the use."""
    configs = datasets.get_dataset_config_names(name)
    usual = [c for c in ("default", "main") if c in configs]
    if not config and not usual and len(configs) > 1:
        raise UserError(f"name one of its configs {configs}, as '{name}:CONFIG'")
    config = config or (usual or configs)[0]
    if split is None:
        splits = datasets.get_dataset_split_names(name, config)
        split = next((s for s in SPLITS[use] if s in splits), None)
        if split is None:
            raise UserError(f"of {SPLITS[use]} it has none, only {splits}")
    return datasets.load_dataset(name, config, split=split)

"""Problems out of JSONL files and hub data sets.

A JSONL row is an object with the texts `id`, `question`, `answer`, `source` and `split`
("train" or "eval"), and where it has them the text `solution` and the texts `choices`.
In place of `answer` it may have `answers`, any one of which is right. GAIA's own
`metadata.jsonl` is read as it is.
"""

import collections
import json
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.hub import hub_rows, is_hub_name
from ovd_jax.tasks.world import world_named, world_problems

SAMPLES = Path(__file__).parents[1] / "embedded" / "data"
REQUIRED = ("id", "question", "answer", "source", "split")
SPLITS = ("train", "eval")


def load_problems(data: str, split: str) -> tuple[Problem, ...]:
    """The problems of one split, "train" or "eval", in file order.

    `data` is a JSONL file, the name of an embedded sample ("gsm8k_train_sample"), the
    made-up world ("world", or "world:1" for another seed), or what `hub_rows` reads.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; it must be 'train' or 'eval'.")
    if world := world_named(data):
        return world_problems(world, split)
    for path in (Path(data), SAMPLES / f"{data}.jsonl"):
        if path.is_file():
            return _load_file(path, split)
    if is_hub_name(data):
        rows = hub_rows(data, split)
        return tuple(_problem(row, f"{data}, {row['id']}") for row in rows)
    samples = ", ".join(sorted(path.stem for path in SAMPLES.glob("*.jsonl")))
    raise UserError(
        f"There is no file {data!r}, and it is not a hub name such as "
        f"'openai/gsm8k:main'. Pass a JSONL path, or one of {samples}, world."
    )


def _load_file(path: Path, split: str) -> tuple[Problem, ...]:
    problems, splits, lines = [], collections.Counter(), {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = _ours(_parse(line, where))
        problem = _problem(row, where)
        if problem.id in lines:
            raise UserError(
                f"{where}: id {problem.id!r} is also on line {lines[problem.id]}; give "
                "each row its own."
            )
        lines[problem.id] = number
        splits[row["split"]] += 1
        if row["split"] == split:
            problems.append(problem)
    if not lines:
        raise UserError(f"{path} is empty; write an object with {REQUIRED} a line.")
    if not problems:
        raise UserError(
            f"{path} has no row whose split is {split!r}, only {dict(splits)}; pass a "
            "file for this use, or correct `split` in its rows."
        )
    return tuple(problems)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not a JSON object in UTF-8 ({error}); write one object a line."
        ) from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is a JSON {type(row).__name__}; write an object.")
    return row


def _ours(row: dict[str, Any]) -> dict[str, Any]:
    """`row`, with GAIA's names of the fields turned into ours."""
    if "Final answer" not in row:
        return row
    names = {"id": "task_id", "question": "Question", "answer": "Final answer"}
    fields = {ours: row[theirs] for ours, theirs in names.items() if theirs in row}
    return fields | {"source": "gaia", "split": "eval"}


def _problem(row: dict[str, Any], where: str) -> Problem:
    answers = _texts(row, "answers", where)
    if answers:
        row = row | {"answer": answers[0]}
    for key in REQUIRED:
        if key not in row:
            raise UserError(f"{where} lacks {key!r}; a row needs {REQUIRED}.")
    texts = {key: _text(row, key, where) for key in REQUIRED}
    if texts["split"] not in SPLITS:
        raise UserError(
            f"{where}: split is {texts['split']!r}; write 'train' or 'eval'."
        )
    return Problem(
        id=texts["id"],
        question=texts["question"],
        answer=texts["answer"],
        source=texts["source"],
        solution=_text(row, "solution", where) if row.get("solution") else "",
        choices=_texts(row, "choices", where),
        answers=answers,
    )


def _texts(row: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = row.get(key, [])
    if not isinstance(values, list):
        raise UserError(f"{where}: {key} is {values!r}; write a list of texts.")
    return tuple(_text({key: value}, key, where) for value in values)


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} is {value!r}; write a non-empty text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: {key} has half of a surrogate pair, which no tokenizer takes; "
            "write the character itself."
        ) from None
    return value

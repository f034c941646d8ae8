"""Problems out of JSONL files and hub data sets.

A row is an object with a question and an answer, in our own columns or those of a known
data set: see `tasks/data/columns.py`. It may have `id`, `source`, `split` ("train" or
"eval"), `solution` and `choices`, and in place of `answer` the `answers`, any one of
which is right.
"""

import collections
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError
from ovd_jax.jsonl import parse_row, read_lines
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.data.columns import SPLITS, to_row
from ovd_jax.tasks.data.hub import hub_rows, is_hub_name

SAMPLES = Path(__file__).parents[2] / "embedded" / "data"
REQUIRED = ("question", "answer")
MAX_BAD = 0.01  # share of a set's rows that may be bad
USES = {name: use for use, names in SPLITS.items() for name in (use, *names)}


def load_problems(data: str, split: str) -> tuple[Problem, ...]:
    """The problems of one split, "train" or "eval", in file order.

    `data` is a JSONL file, the name of an embedded sample ("gsm8k_train_sample"), or
    what `hub_rows` reads.
    Up to 1 % of a set's rows may be bad: they are skipped, with a warning. Raises
    UserError where more are, or none is of this split.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; it must be 'train' or 'eval'.")
    for path in (Path(data), SAMPLES / f"{data}.jsonl"):
        if path.is_file():
            return _load_file(path, split)
    if is_hub_name(data):
        return _load_hub(data, split)
    samples = ", ".join(sorted(path.stem for path in SAMPLES.glob("*.jsonl")))
    raise UserError(
        f"There is no file {data!r}, and it is not a hub name such as "
        f"'openai/gsm8k:main'. Pass a JSONL path, or one of {samples}, world."
    )


class BadRows:
    """Counts the rows of a set that are not problems."""

    def __init__(self):
        self.count = 0
        self._first = ""

    def add(self, error: UserError) -> None:
        """Counts a row with an error."""
        self.count += 1
        self._first = self._first or str(error)

    def check(self, data: str | Path, total: int) -> None:
        """Raises UserError if too many of `total` rows are bad, else warns of them."""
        if not self.count:
            return
        counted = f"{self.count} of {total} rows of {data} are bad"
        if self.count > MAX_BAD * total:
            raise UserError(
                f"{self._first} ({counted}; up to {MAX_BAD:.0%} are skipped)"
            )
        warnings.warn(f"{counted} and skipped, the first: {self._first}", stacklevel=3)


def _load_file(path: Path, split: str) -> tuple[Problem, ...]:
    problems: dict[str, Problem] = {}
    ids: dict[str, int] = {}
    splits, bad, several, total = collections.Counter(), BadRows(), 0, 0
    for number, line in read_lines(path):
        if not line.strip():
            continue
        total += 1
        where = f"{path}:{number}"
        try:
            row = to_row(parse_row(line, where), where)
            if row is None:
                several += 1
                continue
            names = {"id": f"{path.stem}/{number}", "source": path.stem, "split": split}
            row = names | row
            problem = to_problem(row, where)
            if problem.id in ids:
                raise UserError(
                    f"{where}: id {problem.id!r} is also on line {ids[problem.id]}; "
                    "give each row its own."
                )
        except UserError as error:
            bad.add(error)
            continue
        ids[problem.id] = number
        splits[USES[row["split"]]] += 1
        if USES[row["split"]] == split:
            problems[problem.id] = problem
    bad.check(path, total)
    if not total:
        raise UserError(f"{path} is empty; write an object with {REQUIRED} a line.")
    if not problems:
        raise UserError(
            f"{path} has no row whose split is {split!r}, only {dict(splits)}; pass a "
            "file for this use, or correct `split` in its rows."
        )
    _count_unused(path, split, splits, several)
    return tuple(problems.values())


def _load_hub(data: str, split: str) -> tuple[Problem, ...]:
    problems, bad, several, total = [], BadRows(), 0, 0
    for total, (row, where) in enumerate(hub_rows(data, split), 1):
        try:
            row = to_row(row, where)
            if row is None:
                several += 1
                continue
            source = data.partition("[")[0]
            source = data if "//" in data else source.partition(":")[0]
            names = {"id": f"{source}/{split}/{total - 1}", "source": source}
            problems.append(to_problem(row | names | {"split": split}, where))
        except UserError as error:
            bad.add(error)
    bad.check(data, total)
    if not problems:
        raise UserError(f"{data} has no rows for {split!r}; pass other data.")
    _count_unused(data, split, collections.Counter({split: len(problems)}), several)
    return tuple(problems)


def _count_unused(
    data: str | Path, split: str, splits: collections.Counter, several: int
) -> None:
    """Says on the screen which rows are left aside."""
    others = {name: count for name, count in splits.items() if name != split}
    unused = [f"{count} of split {name!r}" for name, count in others.items()]
    unused += [f"{several} with several answers to one question"] if several else []
    if unused:
        warnings.warn(
            f"{data}: {splits[split]} rows are used for {split!r}; not used are "
            f"{' and '.join(unused)}.",
            stacklevel=4,
        )


def keep_good(
    problems: Iterable[Problem], check: Callable[[Problem], None], data: str
) -> tuple[Problem, ...]:
    """The problems that `check(problem)` does not raise UserError for; so may few."""
    kept, bad = [], BadRows()
    for problem in problems:
        try:
            check(problem)
            kept.append(problem)
        except UserError as error:
            bad.add(error)
    bad.check(data, len(kept) + bad.count)
    return tuple(kept)


def to_problem(row: dict[str, Any], where: str) -> Problem:
    """The problem in a row of our columns. Raises UserError."""
    if row["split"] not in USES:
        raise UserError(f"{where}: split is {row['split']!r}; write 'train' or 'eval'.")
    answers = _texts(row, "answers", where)
    texts = {key: _text(row, key, where) for key in ("id", "question", "source")}
    return Problem(
        **texts,
        answer=answers[0] if answers else _text(row, "answer", where),
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
    value = row.get(key)
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

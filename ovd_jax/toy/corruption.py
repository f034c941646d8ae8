"""Wrong steps for the arithmetic task, of the kinds that small models really make."""

import random
import re

from ovd_jax.tasks.arithmetic import ANSWER, evaluate, judge_steps, solve


def corrupt(line: str, rng: random.Random) -> str:
    """`line` with one slip: a wrong number, operator, bracket or piece."""
    kind = rng.choice((*["number"] * 3, "digit", "operator", "drop", "cut"))
    body = line.removeprefix(ANSWER)
    mark = line[: len(line) - len(body)]
    if kind == "number":
        return mark + _edit(r"\d+", body, rng, lambda number: _nearby(number, rng))
    if kind == "digit":
        return mark + _edit(r"\d", body, rng, lambda _: str(rng.randint(0, 9)))
    if kind == "operator" and not body.isdigit():
        return mark + _edit("[-+*]", body, rng, lambda _: rng.choice("+-*"))
    if kind == "drop" and len(body) > 1:
        index = rng.randrange(len(body))
        return mark + body[:index] + body[index + 1 :]
    if kind == "cut" and not mark and not body.isdigit():
        return ANSWER + rng.choice(re.findall(r"\d+", body))
    return mark + _edit(r"\d+", body, rng, lambda number: _nearby(number, rng))


def _edit(pattern: str, text: str, rng: random.Random, change) -> str:
    """`text` with one random match of `pattern` changed."""
    match = rng.choice(list(re.finditer(pattern, text)))
    return text[: match.start()] + change(match[0]) + text[match.end() :]


def _nearby(number: str, rng: random.Random) -> str:
    """A slip of the pen or of the mind for `number`."""
    value = int(number)
    offset = rng.choice((-10, -2, -1, -1, 1, 1, 2, 10, rng.randint(-20, 20)))
    return str(abs(value + offset))


def judged_solution(expression: str, rng: random.Random) -> tuple[list[str], list[int]]:
    """Solution lines with slips in some, and the exact score of each line.

    After a slip the solution goes on from the wrong line, as a student's would; it ends
    there if that line is no expression any more. Some lines are said twice, others jump
    over several operations, so that the middle of the scale is seen too.
    """
    lines, before = [], expression
    slip_rate = rng.choice((0.0, 0.3, 0.6))
    while True:
        rest = list(solve(before))
        if not rest:
            break
        line = rest[0]
        roll = rng.random()
        if roll < slip_rate:
            line = corrupt(line, rng)
        elif roll > 0.96:
            line = before if before != expression else rest[min(1, len(rest) - 1)]
        elif roll > 0.94:
            line = rng.choice(rest)
        lines.append(line)
        parsed = evaluate(line)
        if parsed is None or line.startswith(ANSWER) or len(lines) > 10:
            break
        before = line
    return lines, judge_steps(expression, lines)

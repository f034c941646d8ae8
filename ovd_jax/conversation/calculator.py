"""A calculator as an environment: the student asks for the value of an expression."""

import ast
import dataclasses
import operator
import re

from ovd_jax.conversation.env import Done, Observation
from ovd_jax.tasks.base import Problem, Task

HOW_TO_USE = (
    "Whenever you need to calculate, write the expression in calculator tags, as in "
    "<calculator>12*(3+4)</calculator>; its value is then shown to you in result tags."
)
_OPEN, _CLOSE = "<calculator>", "</calculator>"


class Calculator:
    """Answers what stands in calculator tags; a turn without them is the last one."""

    turn_ends = (_CLOSE,)
    observation_tags = ("\n<result>", "</result>\n")

    def __init__(self, task: Task):
        self._task = task

    def reset(self, problem: Problem) -> str:
        """The task's prompt for the question, which begins with how to calculate."""
        question = f"{HOW_TO_USE}\n\n{problem.question}"
        return self._task.prompt(dataclasses.replace(problem, question=question))

    def step(self, text: str) -> Observation | Done:
        """The value of the expression in the first closed tag."""
        asked, closed, _ = text.partition(_CLOSE)
        if not closed:
            return Done()
        _, opened, expression = asked.rpartition(_OPEN)
        try:
            if not opened:
                raise ValueError("the calculator tag was not opened")
            return Observation(calculate(expression))
        except ValueError as error:
            return Observation(f"error: {error}", valid=False)


_OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip
_SIGNS = str.maketrans(  # of a product, a quotient and a minus as a textbook prints it
    {"\xd7": "*", "\xf7": "/", "\u2212": "-", "^": "**", ",": None, "$": None}
)
_MOST_CHARS = 200  # of an expression: neither deep nor slow to read
_MOST = 1e30  # no value on the way may be further from 0
_MOST_EXPONENT = 200
_TOO_LARGE = "the value is too large, or no real number"


def calculate(text: str) -> str:
    """The value of an expression of numbers, brackets and + - * / // % ** (or ^), to 12
    digits where it is no integer. Raises ValueError, which says why, for any other
    text, and for values over 10^30. Nothing in the text is run as a program."""
    expression = " ".join(text.split()).rstrip("= ").translate(_SIGNS)
    if len(expression) > _MOST_CHARS:
        raise ValueError(f"an expression may have {_MOST_CHARS} characters")
    if not re.fullmatch(r"[0-9.+\-*/%() ]+", expression):
        raise ValueError("write numbers, brackets and + - * / // % ** alone")
    try:
        value = _value(ast.parse(expression, mode="eval").body)
    except SyntaxError:
        raise ValueError("this is no expression") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError(_TOO_LARGE) from None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _value(node: ast.AST) -> int | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return _bounded(node.value)
    operation = _OPERATORS.get(type(getattr(node, "op", None)))
    if isinstance(node, ast.UnaryOp) and operation:
        return operation(_value(node.operand))
    if isinstance(node, ast.BinOp) and operation:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > _MOST_EXPONENT:
            raise ValueError(f"an exponent may be {_MOST_EXPONENT} at most")
        return _bounded(operation(left, right))
    raise ValueError("this is no expression")


def _bounded(value: object) -> int | float:
    """`value`, if it is a real number that is not too large."""
    if isinstance(value, int | float) and abs(value) <= _MOST:  # nan is not
        return value
    raise ValueError(_TOO_LARGE)

"""Public functions and methods say what they take and return."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ovd_jax"
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def public(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module or class that others may call, not those within one."""
    for child in ast.iter_child_nodes(node):
        if getattr(child, "name", "_").startswith("_"):
            continue
        if isinstance(child, ast.ClassDef):
            yield from public(child)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child


def missing(text: str) -> list[str]:
    """Parameters without a type, as `function(name)`, and functions without one of
    what they return, as `function()`."""
    found = []
    for function in public(ast.parse(text)):
        args = function.args
        rest = [arg for arg in (args.vararg, args.kwarg) if arg]
        for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, *rest):
            if arg.annotation is None and arg.arg not in ("self", "cls"):
                found.append(f"{function.name}({arg.arg})")
        if function.returns is None:
            found.append(f"{function.name}()")
    return found


@pytest.mark.parametrize("file", FILES)
def test_public_functions_say_their_types(file):
    found = missing((PACKAGE / file).read_text("utf-8"))
    assert not found, f"ovd_jax/{file} has no types for {', '.join(found)}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a, b: int) -> int: ...", ["f(a)"]),
        ("def f(a: int): ...", ["f()"]),
        ("async def f(*args, **kwargs) -> None: ...", ["f(args)", "f(kwargs)"]),
        ("class A:\n    def f(self, a) -> int: ...", ["f(a)"]),
        ("class A:\n    def __init__(self, a): ...", []),
        ("class _A:\n    def f(self, a): ...", []),
        ("def _f(a): ...", []),
        ("def f() -> int:\n    def g(a): ...", []),
    ],
)
def test_missing_types_are_found(text, expected):
    assert missing(text) == expected

"""Rooms import only what stands on lower floors, and only the wiring reads the config;
files and functions are short.

A new room is named in `FLOORS`, on the lowest floor where everything it imports is
below it.
"""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ovd_jax"

# From the ground up; the rooms of one floor do not import one another.
FLOORS = (
    {"errors", "paths", "seeds", "shapes", "thoughts", "threads"},
    {"files", "jsonl", "own_code", "text"},
    {"template"},  # fills slots by text.py
    {"client", "models", "reporting"},
    {"sampling", "learning", "search", "teacher"},
    {"tasks", "cli"},
    {"rollout", "toy"},
    {"conversation", "multihost"},
    {"evaluation"},
    {"training"},
    {"wiring"},
    {
        "audit", "compare", "export", "make_judge_data", "make_simulator_data",
        "serve_search", "sft",
    },
    {"train", "evaluate"},
)  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Rooms that are handed the config: `cli` reads it from files and the command line.
READERS = {"cli", "wiring", *FLOORS[-2], *FLOORS[-1]}
# Files that read it as well, and why.
STILL_READING = {
    "training/methods.py": "each row of the table reads the knobs of its own method",
    "training/objectives.py": "each objective reads the knobs of its own loss",
    "training/batches.py": "it hands the config to the method that is named there",
}
CONFIGS = ("config", "options")  # names that parameters with knobs have


def room_of(module: str) -> str:
    """`rollout` of `ovd_jax.rollout.pack`; the package itself is no room."""
    return module.split(".")[1] if "." in module else ""


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All of a module, functions included, that runs: not what is for types alone."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if is_for_types(child):
            child = ast.Module(child.orelse, [])
        yield from nodes(child)


def imported(text: str, package: str) -> Iterator[str]:
    """The modules of ours that a module in `package` imports, by their whole names."""
    for node in nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            parts = [*base, *filter(None, [node.module])]
            names = [".".join([*parts, alias.name]) for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "ovd_jax")


def wrong_imports(text: str, module: str) -> list[str]:
    """The imports of `module` that its room must not make."""
    room = room_of(module)
    return [
        name
        for name in imported(text, module.rpartition(".")[0])
        if (other := room_of(name)) != room
        and other in FLOOR
        and FLOOR[other] >= FLOOR[room]
    ]


def config_parameters(text: str) -> list[str]:
    """The functions that take a config: a parameter of such a name with no type, or
    one whose type says so."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            args = node.args
            for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs):
                kind = ast.unparse(arg.annotation) if arg.annotation else ""
                if (arg.arg in CONFIGS and not kind) or "ConfigDict" in kind:
                    found.append(f"{getattr(node, 'name', 'lambda')}({arg.arg})")
    return found


def files() -> list[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [str(path.relative_to(PACKAGE)) for path in paths]


def test_every_room_has_a_floor():
    counts = collections.Counter(room for rooms in FLOORS for room in rooms)
    there = {file.split("/")[0].removesuffix(".py") for file in files()}
    assert set(counts) == there - {"__init__"}
    assert max(counts.values()) == 1


@pytest.mark.parametrize("file", files())
def test_no_room_imports_one_above_it(file):
    module = ".".join(["ovd_jax", *Path(file).with_suffix("").parts])
    if module != "ovd_jax.__init__":
        found = wrong_imports((PACKAGE / file).read_text("utf-8"), module)
        assert not found, f"ovd_jax/{file} imports {', '.join(found)} from above"


@pytest.mark.parametrize("file", files())
def test_no_room_but_the_wiring_reads_the_config(file):
    room = file.split("/")[0].removesuffix(".py")
    text = (PACKAGE / file).read_text("utf-8")
    found = config_parameters(text)
    found += ["ml_collections"] if "ml_collections" in text else []
    if room not in READERS and file not in STILL_READING:
        assert not found, f"ovd_jax/{file} takes the config: {', '.join(found)}"
    if file in STILL_READING:
        assert found, f"take ovd_jax/{file} out of STILL_READING"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("from ovd_jax.rollout.collect import Collector", ["ovd_jax.rollout.collect"]),
        ("from ovd_jax.rollout import collect", ["ovd_jax.rollout"]),
        ("import ovd_jax.wiring.teacher", ["ovd_jax.wiring.teacher"]),
        ("from ovd_jax import train", ["ovd_jax.train"]),
        ("from ..search.base import Query", ["ovd_jax.search.base"]),
        ("def f():\n    from ovd_jax.search import base", ["ovd_jax.search"]),
        ("if x:\n    pass\nelse:\n    import ovd_jax.train", ["ovd_jax.train"]),
        ("from ovd_jax.client.cache import DiskCache", []),
        ("from ovd_jax.teacher.base import Teacher", []),
        ("from ovd_jax import seeds, template", []),
        ("import collections", []),
        ("if TYPE_CHECKING:\n    from ovd_jax.rollout import collect", []),
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(line, wrong):
    found = wrong_imports(line, "ovd_jax.teacher.base")
    assert len(found) == len(wrong)
    assert all(x.startswith(y) for x, y in zip(found, wrong, strict=True))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("def f(config): pass", ["f(config)"]),
        ("def f(*, options): pass", ["f(options)"]),
        ("x = lambda config: config.seed", ["lambda(config)"]),
        ("def f(knobs: ConfigDict): pass", ["f(knobs)"]),
        ("def f(config: TransformerConfig): pass", []),
        ("def f(model): return model.config", []),
    ],
)
def test_a_function_that_takes_the_config_is_found(line, found):
    assert config_parameters(line) == found


# Lines that a file may have, and a function without its docstring. Configs are exempt:
# their functions have a line for each knob.
MOST_LINES, MOST_TEST_LINES, MOST_FUNCTION_LINES = 300, 400, 40
LONGER_FILES = {
    "tests/teacher_server.py": "one server with all faults that clients must survive",
}
LONGER_FUNCTIONS: dict[str, str] = {}  # "file: function": why


def functions(text: str) -> Iterator[tuple[str, int]]:
    """(name, lines without the docstring) of every function in a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def sources(*folders: str) -> list[Path]:
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


def test_files_are_short():
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in sources("ovd_jax", "launch", "configs", "examples", "tests")
    }
    bounds = {True: MOST_TEST_LINES, False: MOST_LINES}
    over = {x for x, n in lines.items() if n >= bounds[x.startswith("tests/")]}
    assert over <= set(LONGER_FILES)


def test_functions_are_short():
    over = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("ovd_jax", "launch", "examples")
        for name, lines in functions(path.read_text("utf-8"))
        if lines >= MOST_FUNCTION_LINES
    }
    assert over <= set(LONGER_FUNCTIONS)

"""Loads classes and functions from user files: `path/to/file.py:Name` in a knob.

The file is executed like any import; only the user's own config and command line name
one.
"""

import functools
import hashlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from ovd_jax.errors import UserError

_SPEC = re.compile(r"(.+\.py):(\w+)")


def names_code(value: object) -> bool:
    """True if a knob's value has the form `path/to/file.py:Name`."""
    return isinstance(value, str) and bool(_SPEC.fullmatch(value))


def load_code(value: str, knob: str) -> Any:
    """The object that `value` names. Raises UserError if the file is missing, fails or
    lacks the name."""
    match = _SPEC.fullmatch(value)
    if not match:
        raise UserError(f"{knob} is {value!r}; write path/to/file.py:Name.")
    path = Path(match[1]).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"{knob} is {value!r}; there is no file {path}.")
    try:
        module = _run(path)
    except Exception as error:
        line = _line_of(error, path)
        raise UserError(
            f"{knob} is {value!r}; {path.name} does not run "
            f"({type(error).__name__}{line}: {error})."
        ) from error
    if not hasattr(module, match[2]):
        names = [x for x in vars(module) if not x.startswith("_")]
        raise UserError(
            f"{knob} is {value!r}; {path.name} has no {match[2]}, it has "
            f"{', '.join(names) or 'nothing'}."
        )
    return getattr(module, match[2])


def build(value: str, knob: str, protocol: type, *args: Any, **kwargs: Any) -> Any:
    """An object of the class that `value` names. Raises UserError if it is not a class,
    or if its objects lack members of `protocol`."""
    kind = load_code(value, knob)
    if not inspect.isclass(kind):
        raise UserError(f"{knob} is {value!r}, which is no class.")
    made = kind(*args, **kwargs)
    check_members(made, value, knob, protocol)
    return made


def check_members(thing: object, value: str, knob: str, protocol: type) -> None:
    """Raises UserError where what `value` names lacks members of `protocol`."""
    missing = [name for name in members(protocol) if not hasattr(thing, name)]
    if missing:
        raise UserError(
            f"{knob} is {value!r}; it needs {', '.join(missing)} to be a "
            f"{protocol.__name__}: see {protocol.__module__}."
        )


def code_digest(value: str) -> str:
    """A name for the class or function that changes with the text of its file."""
    path, _, name = value.rpartition(":")
    text = Path(path).expanduser().read_bytes()
    return f"{name} {hashlib.sha256(text).hexdigest()}"


def members(protocol: type) -> list[str]:
    """The attributes and methods of a protocol."""
    names = [*inspect.get_annotations(protocol), *vars(protocol)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


@functools.cache
def _run(path: Path):
    """The module of a file, executed once."""
    name = f"own_code_{path.stem}_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # of a path in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line_of(error: Exception, path: Path) -> str:
    """` in line N` of the file, if the error passed through it."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    trace, line = error.__traceback__, ""
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f" in line {trace.tb_lineno}"
        trace = trace.tb_next
    return line

"""Config files: a shipped one by its name, any other by its path."""

import contextlib
import difflib
import importlib.util
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

import ovd_jax
from ovd_jax.errors import UsageError

_PACKAGE = Path(ovd_jax.__file__).resolve().parent
# Holds configs/ and launch/: the repository, or the package where it is installed.
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
SHIPPED = ROOT / "configs"


def load_file(name: str) -> ConfigDict:
    """Returns the locked config that `get_config()` of a config file makes.

    `name` is a shipped config (`quickstart`) or a path from the current folder or else
    from ROOT (`configs/quickstart.py`); `NAME:text` calls `get_config(text)`, as in
    ml_collections. Raises UsageError if there is no such file or if it fails.
    """
    file_name, *text = name.split(":", 1)
    path = find(file_name)
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None or spec.loader is None:
        raise UsageError(
            f"--config={name}: not a Python file; name one that ends in .py."
        )
    module = importlib.util.module_from_spec(spec)
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
            config = module.get_config(*text)
    except Exception as error:  # a user's file may raise anything
        where = [
            f" ({frame.filename}, line {frame.lineno})"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__
            and not re.match("<|.*ml_coll", frame.filename)
        ]
        raise UsageError(
            f"--config={name} failed{''.join(where[-1:])}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise UsageError(
            f"--config={name}: get_config() gave a {type(config).__name__}; "
            "return an ml_collections.ConfigDict."
        )
    return config.lock()


def find(name: str) -> Path:
    """Returns the file of a config; raises UsageError if there is none."""
    file_name = as_path(name)
    if file_name != name:
        places, where = [ROOT / file_name], f"no config of this name in {SHIPPED}"
    else:
        path = Path(os.path.expanduser(name))  # leaves `~nobody` as it is
        places = [path, ROOT / path]
        where = f"no such file, here ({Path.cwd()}) or in {ROOT}"
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UsageError(f"--config={name}: {where}.{similar(name)}")
    return path


def as_path(name: str) -> str:
    """Spells the name of a shipped config as a path in ROOT; a path stays as it is.

    `quickstart` becomes `configs/quickstart.py`, and `eval_qa:cot`
    `configs/eval_qa.py:cot`.
    """
    return re.sub(r"^([a-z]\w*)(?=:|$)", r"configs/\1.py", name)


def similar(name: str) -> str:
    """Asks whether another shipped config was meant; empty if none is close."""
    shipped = [path.stem for path in sorted(SHIPPED.glob("[a-z]*.py"))]
    close = difflib.get_close_matches(Path(name).stem, shipped, n=1)
    return f" Did you mean {close[0]}?" if close else ""


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets a config file in `folder` build on others: `from configs import NAME`.

    NAME is a shipped config or else, if `folder` is called `configs`, a file in it.
    A package `configs` of the calling program's own is put back afterwards.
    """
    own = _modules()
    for name in own:
        del sys.modules[name]
    package = types.ModuleType("configs")
    neighbours = [str(folder)] if folder.resolve().name == "configs" else []
    package.__path__ = [str(SHIPPED), *neighbours]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        for name in _modules():
            del sys.modules[name]
        sys.modules.update(own)


def _modules() -> dict[str, types.ModuleType]:
    """Returns the imported package `configs` and its modules by their names."""
    return {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "configs"
    }

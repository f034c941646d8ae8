"""The files and folders that knobs name."""

from pathlib import Path

from ml_collections import ConfigDict

from ovd_jax.errors import UserError
from ovd_jax.own_code import names_code

_DATA = ("data", "held_out_data", "search.corpus", "corpus")
_MODELS = ("model", "teacher.model", "search.model", "continuer.model")
# Knobs that may name user code; `method_of` checks `method`.
OWN_CODE = (
    "task", "env", "reward", "teacher.model", "continuer.model", "search.backend",
)  # fmt: skip
_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".txt", ".gz")


def check_files(config: ConfigDict) -> None:
    """Raises UserError for a missing file or folder, if the value can only be a
    path."""
    for knobs, is_local in ((_DATA, is_data_file), (_MODELS, is_folder)):
        for knob in knobs:
            for path in parts(config, knob):
                own = knob in OWN_CODE and names_code(path)
                if is_local(path) and not own and not Path(path).exists():
                    raise UserError(
                        f"{knob} names {path!r}, which is not there (here is "
                        f"{Path.cwd()})."
                    )


def parts(config: ConfigDict, knob: str) -> list[str]:
    """The comma-separated values of a knob; none if the program lacks it."""
    value = config
    for name in knob.split("."):
        value = value.get(name, "") if isinstance(value, ConfigDict) else ""
    return [part.strip() for part in str(value).split(",") if part.strip()]


def is_folder(path: str) -> bool:
    """True if a model's name can only be a path."""
    return path.startswith(("/", "./", "../"))


def is_data_file(path: str) -> bool:
    """True if a data set's name can only be a path."""
    return is_folder(path) or path.endswith(_SUFFIXES)

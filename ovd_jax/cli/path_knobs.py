"""Knobs that hold paths: `~` is expanded, and values that are no paths here are
refused.

`run_dir=gs://bucket/run` would otherwise be the folder `gs:` in the current one.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

PATHS = (  # some take names as well, of a model or of a data set on the hub
    "run_dir", "data", "held_out_data", "model", "teacher.model", "teacher.prompt",
    "teacher.cache", "continuer.model", "search.model", "search.prompt",
    "search.corpus", "search.index_dir", "search.cache", "qa.prompt", "eval_cache",
    "output", "corpus", "index_dir", "trajectories", "prompt", "base", "eval_base",
    "cases", "questions", "models", "judged_data", "students", "continuer_of",
    "task", "env", "method", "reward", "search.backend",  # a file of one's own
)  # fmt: skip
URL = re.compile(r"(?:^|,)\s*[A-Za-z][\w+.@-]*:/")
HOME = re.compile(r"(^|,)(\s*)(~[^/,]*)(?=/|,|$)")


def not_a_path(values: Mapping[str, object]) -> str:
    """The message for the first value that is no path on this machine; empty if all
    are."""
    for knob in PATHS:
        value = values.get(knob)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and URL.search(path):
                return (
                    f"{knob} is {path!r}; nothing is read from or written to other "
                    "storage than this machine's: name a path here, such as the folder "
                    "that a bucket is mounted at."
                )
            if isinstance(path, str) and "\0" in path:
                return f"{knob} is {path!r}; no path holds a NUL: take it out."
    if values.get("run_dir") == "":
        return "run_dir is empty; name the folder to write to."
    return ""


def own_held_out(values: Mapping[str, object], given: Collection[str]) -> str:
    """The held-out data that a file in `data` takes the place of, if the command line,
    which sets `given`, names the file alone; empty if there is none.

    A config holds out problems for its own training data: of a file, rows of it are.
    """
    if "data" not in given or "held_out_data" in given:
        return ""
    data, held_out = values.get("data"), values.get("held_out_data")
    is_file = isinstance(data, str) and Path(data).expanduser().is_file()
    return str(held_out) if is_file and held_out and held_out != data else ""


def expanded(values: Mapping[str, object]) -> dict[str, object]:
    """The comma-separated paths that begin with `~`, with the home folder."""
    found = {}
    for knob in PATHS:
        value = values.get(knob)
        paths = value if isinstance(value, tuple) else (value,)
        new = [HOME.sub(_home, x) if isinstance(x, str) else x for x in paths]
        if new != list(paths):
            found[knob] = tuple(new) if isinstance(value, tuple) else new[0]
    return found


def _home(match: re.Match) -> str:
    try:
        return match[1] + match[2] + str(Path(match[3]).expanduser())
    except RuntimeError:  # there is no such user: `~x` is a name like any other
        return match[0]

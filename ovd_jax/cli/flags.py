"""Command lines, by absl and ml_collections: `--config=NAME`, or a file's path, and
`--config.knob=value`.

What a user can get wrong ends in one line on stderr: exit code 2 for the command line
or the config file, 1 for a UserError of the program, a disk that is full, a teacher or
search engine that does not answer, or a run that collapsed. `OVD_TRACEBACK=1` shows the
rest. Ctrl-C and SIGTERM end it in one line too, with exit code 130 or 143.
"""

import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import absl.flags
from ml_collections import ConfigDict, config_flags

from ovd_jax.cli.choices import not_a_choice
from ovd_jax.cli.config_files import load_file
from ovd_jax.cli.environment import said_of
from ovd_jax.cli.interrupt import SIGNALS, Interrupted, QuickEnd, end_after
from ovd_jax.cli.knobs import check_file, holds, knobs, mistyped, nearest, unknown
from ovd_jax.cli.path_knobs import expanded, not_a_path, own_held_out
from ovd_jax.cli.ranges import out_of_range
from ovd_jax.cli.renamed import with_new_names
from ovd_jax.client.credentials import exposed
from ovd_jax.errors import EnvError, TeacherError, UsageError, UserError
from ovd_jax.files import write_text
from ovd_jax.jsonl import read_object
from ovd_jax.reporting.collapse import Collapsed
from ovd_jax.reporting.run_dir import to_json
from ovd_jax.search.base import SearchError
from ovd_jax.text import one_line

_KNOWN = (UserError, SearchError, TeacherError, EnvError, Collapsed)  # say it all
_LAST_S = 5.0  # of an interrupted program, for what is left to close
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")


def run(
    main: Callable, *, doc: str | None, default: str, argv: list[str] | None = None
) -> None:
    """Calls `main(config)`, or `main(config, arguments)` if it takes positional ones.

    `config` is locked. `default` is the config used without `--config`, by its name or
    its path; `--help` prints `doc` and every knob.
    """
    ending = QuickEnd() if argv is None else None  # where this is all of the program
    argv = sys.argv if argv is None else argv
    # Else transformers says at its import that it has no torch, which nothing needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    debug = bool(os.environ.get("OVD_TRACEBACK"))
    try:
        with SIGNALS.caught():
            _run(main, doc=doc, default=default, argv=argv)
    except Interrupted as stop:
        print(line_of(stop), file=sys.stderr, flush=True)
        end_after(_LAST_S, stop.code)
        leave(ending, stop.code)
    except UsageError as error:
        if debug and error.__cause__:
            traceback.print_exception(error.__cause__)
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if debug or not (line := line_of(error)):
            if ending is not None:
                ending.begin(1)
            raise
        print(line, file=sys.stderr)
        leave(ending, 1)


def leave(ending: QuickEnd | None, code: int) -> NoReturn:
    """Raises SystemExit; the program then ends without delay."""
    if ending is not None:
        ending.begin(code)
    sys.exit(code)


def line_of(error: BaseException) -> str:
    """The line that a program ends with; empty for a fault of the program itself."""
    if isinstance(error, Interrupted):
        return str(error)
    known = isinstance(error, _KNOWN)
    said = one_line(str(error) if known else said_of(error))
    return f"error: {said} (OVD_TRACEBACK=1 shows where)" if said else ""


def _run(main: Callable, *, doc: str | None, default: str, argv: list[str]) -> None:
    config, arguments = parse(argv, doc=doc, default=default)
    takes_arguments = len(inspect.signature(main).parameters) > 1
    if arguments and not takes_arguments:
        stray = arguments[0]
        raise UsageError(f"{stray}: not a flag. {nearest(stray, config)}")
    main(config, arguments) if takes_arguments else main(config)


def parse(
    argv: list[str], *, doc: str | None, default: str
) -> tuple[ConfigDict, list[str]]:
    """The config `argv` asks for and the positional arguments; answers `--help`."""
    program = absl.flags.FlagValues()
    program.set_gnu_getopt(True)
    absl.flags.DEFINE_string("config", default, "", flag_values=program)
    absl.flags.DEFINE_bool("help", False, "", short_name="h", flag_values=program)
    try:
        rest = program(argv, known_only=True)
    except (absl.flags.Error, ValueError) as error:
        raise UsageError(str(error)) from error
    config, known = load_file(program.config), load_file(default)
    if wrong := check_file(config, known):
        raise UsageError(f"--config={program.config} {wrong}")
    as_floats(config, known)
    arguments = override(config, rest, known, source=program.config)
    if program.help:
        print(help_text(config, doc=doc, program=argv[0], source=program.config))
        sys.exit(0)
    values = {name: value for name, (_, value) in knobs(config).items()}
    given = {match[1] for match in map(OVERRIDE.match, rest) if match}
    if left := own_held_out(values, given):
        config.held_out_data = ""
        print(
            f"Rows of {config.data} are held out for evaluation in place of {left}; "
            "set held_out_data to evaluate on other data.",
            file=sys.stderr,
        )
    if (
        wrong := exposed(values)
        or out_of_range(values)
        or not_a_choice(values)
        or not_a_path(values)
    ):
        raise UsageError(wrong)
    config.update_from_flattened_dict(expanded(values))
    return config, arguments


def as_floats(config: ConfigDict, known: ConfigDict) -> None:
    """Turns ints that a config file sets for floats into floats, so that the command
    line may set any float."""
    kinds = {name: kind for name, (kind, _) in knobs(known).items()}
    ints = {
        name: float(value)
        for name, (_, value) in knobs(config).items()
        if kinds[name] is float and isinstance(value, int)
    }
    with config.ignore_type():
        config.update_from_flattened_dict(ints)


def override(
    config: ConfigDict, argv: list[str], default: ConfigDict, *, source: str
) -> list[str]:
    """Sets the knobs that `argv` names and returns its positional arguments. Their
    types are those of the config `default`."""
    known = knobs(default)
    given = {}  # knob: how the user wrote it
    for index, argument in enumerate(argv):
        if match := OVERRIDE.match(argument):
            following = "=".join(argv[index + 1 : index + 2])
            written = argument if "=" in argument else f"{argument}={following}"
            given[match[1]] = written
            if match[1] not in known:
                raise UsageError(f"{written} ({source}): {unknown(match[1], config)}")
    values = absl.flags.FlagValues()
    values.set_gnu_getopt(True)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=argv
        )
        arguments = values(argv)[1:]
    except absl.flags.UnrecognizedFlagError as error:
        raise UsageError(
            f"--{error.flagname}: no such flag. {nearest(error.flagname, config)}"
        ) from error
    except (absl.flags.Error, TypeError, ValueError) as error:
        blamed = re.search(r"config\.([\w.]+)", str(error))
        if not blamed or blamed[1] not in given:
            raise UsageError(str(error)) from error
        raise UsageError(mistyped(given[blamed[1]], known[blamed[1]])) from error
    # A tuple's parser takes anything: `abc` would become `('abc',)`.
    for name, (_, value) in knobs(config).items():
        if name in given and not holds(known[name], value):
            raise UsageError(mistyped(given[name], known[name]))
    return arguments


def help_text(config: ConfigDict, *, doc: str | None, program: str, source: str) -> str:
    """The program's docstring, then each knob with its value and type."""
    rows = [(f"--config.{n}={v!r}", k.__name__) for n, (k, v) in knobs(config).items()]
    width = min(max((len(flag) for flag, _ in rows), default=0), 70)
    lines = [f"  {flag:<{width}}  {kind}" for flag, kind in rows]
    if not program.endswith(".py"):  # a console command, by its whole path
        program = Path(program).name
    usage = f"usage: {program} [--config=NAME_OR_FILE] [--config.KNOB=VALUE ...]"
    head = f"Knobs of {source}, with their values now:"
    return "\n".join([(doc or "").strip(), "", usage, "", head, *lines]).lstrip()


def to_text(config: ConfigDict) -> str:
    """The resolved config as sorted JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, default=str) + "\n"


def save(config: ConfigDict, folder: str | Path) -> None:
    """Writes `config.json` into a run directory."""
    write_text(Path(folder) / "config.json", to_text(config))


def load(folder: str | Path, *, default: str | None = None) -> ConfigDict:
    """The locked config that `save` wrote; JSON's lists become tuples again.

    Knobs that did not exist when it was written have the values of the file `default`;
    renamed ones get their new names.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; is {folder} the directory of a run?")

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return ConfigDict({name: restore(item) for name, item in value.items()})
        return tuple(map(restore, value)) if isinstance(value, list) else value

    saved = with_new_names(read_object(path))
    known = load_file(default) if default else ConfigDict()
    try:
        config = restore(merged(known.to_dict(), saved)).lock()
    except (AttributeError, KeyError, ValueError) as error:  # by ConfigDict, of a name
        raise UserError(f"{path} is damaged: {error}; put it back.") from None
    found = knobs(config)
    for name, knob in knobs(known).items():
        if name not in found or not holds(knob, found[name][1]):
            said = repr(found[name][1]) if name in found else "no knob"
            raise UserError(f"{path} is damaged: {name} is {said}; put it back.")
    return config


def merged(defaults: dict, given: dict) -> dict:
    """`given`, with the knobs that it lacks from `defaults`, in all groups."""
    result = defaults | given
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict):
            result[name] = merged(defaults[name], value)
    return result


def summary(**values: object) -> None:
    """Prints the program's result as one line of JSON: the last line on stdout."""
    print(to_json(values), flush=True)

"""Prompts as data: the fields of their templates, and those in files of the user's."""

import dataclasses
import json
import string
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar, get_origin

from ovd_jax.errors import UserError

Prompt = TypeVar("Prompt")  # a dataclass of texts, lists of texts and yes or no


def fields_of(name: str, template: str) -> set[str]:
    """The fields of the template called `name`. Raises UserError where braces do not
    close or a field has a format of its own."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"The template {name}: {error}; write {{{{ for {{.") from None
    for _, field, spec, conversion in parts:
        if spec or conversion:
            raise UserError(
                f"The template {name} gives {field!r} a format; write {{{field}}}."
            )
    return {field for _, field, _, _ in parts if field is not None}


def check_fields(
    name: str, template: str, needed: Collection[str], possible: Collection[str] = ()
) -> None:
    """Raises UserError unless the template called `name` has the fields `needed`, and
    beside them only `possible` ones."""
    found = fields_of(name, template)
    if not set(needed) <= found <= {*needed, *possible}:
        also = f" (and may have {sorted(possible)})" if possible else ""
        raise UserError(
            f"The template {name} has the fields {sorted(found)}, but needs "
            f"{sorted(needed)}{also}."
        )


def find_prompt(
    knob: str, name: str, prompts: Mapping[str, Prompt], kind: type[Prompt]
) -> Prompt:
    """The one of `prompts` called `name`, or the one in the JSON file `name`, checked;
    `knob` is where the name stands in the config. Raises UserError."""
    if name in prompts:
        return prompts[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"{knob} {name!r} is neither a JSON file nor one of {', '.join(prompts)}."
        )
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{name} is no JSON in UTF-8: {error}") from None
    return from_json(raw, name, kind)


def from_json(raw, where: str, kind: type[Prompt]) -> Prompt:
    """The prompt in a decoded JSON object. Raises UserError naming what is wrong."""
    known = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(raw, dict) or raw.keys() - known.keys():
        extra = sorted(raw.keys() - known.keys()) if isinstance(raw, dict) else raw
        raise UserError(
            f"{where} has {str(extra)[:100]}; write an object of {', '.join(known)}."
        )
    missing = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and name not in raw
    ]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}.")
    values = {
        name: _value(f"{where}: {name}", value, known[name].type)
        for name, value in raw.items()
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _value(where: str, value, expected: type):
    """A value of a field of the type `expected`."""
    if get_origin(expected) is tuple:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise UserError(f"{where} is {value!r}; write a list of texts.")
        return tuple(value)
    if not isinstance(value, expected):
        raise UserError(f"{where} is {value!r}, no {expected.__name__}.")
    return value

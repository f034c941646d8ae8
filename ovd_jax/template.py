"""Prompts as data: their fields, slots that are filled safely, and files of the user's.

What fills a slot is a model's or a stranger's text. It cannot form a special token, it
cannot repeat what the template fences its slots with (tags such as `</solution>` and
runs of punctuation such as `---`), and it is of bounded length.
"""

import dataclasses
import functools
import json
import logging
import re
import string
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

from ovd_jax.errors import UserError
from ovd_jax.text import control_pattern, neutralize

_log = logging.getLogger(__name__)

MAX_SLOT = 20_000  # characters; the middle of a longer text is left out
_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")
_RULE = re.compile(r"([^\w\s{}])\1{2,}")

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# A dataclass of texts, lists of texts and yes or no.
Prompt = TypeVar("Prompt", bound="DataclassInstance")


def fields_of(name: str, template: str) -> set[str]:
    """The fields of the template called `name`. Raises UserError for unclosed braces,
    or a field with a format."""
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
    """Raises UserError unless the template called `name` has all `needed` fields, and
    no others than `possible` ones."""
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
    """The prompt called `name`, or the one in the JSON file `name`; `knob` names it in
    the config. Raises UserError."""
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


def from_json(raw: object, where: str, kind: type[Prompt]) -> Prompt:
    """The prompt in a decoded JSON object. Raises UserError."""
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


def _value(where: str, value, expected: Any):
    """A value of a field of the type `expected`."""
    if get_origin(expected) is tuple:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise UserError(f"{where} is {value!r}; write a list of texts.")
        return tuple(value)
    if not isinstance(value, expected):
        raise UserError(f"{where} is {value!r}, no {expected.__name__}.")
    return value


def fill(
    template: str,
    special_tokens: tuple[str, ...],
    *,
    on_cut: Callable[[str], None] = lambda name: None,
    **slots: str,
) -> str:
    """The template with its slots filled.

    The texts, even two adjacent ones, cannot form a special token or a fence of the
    template. Calls `on_cut` with the name of each slot whose text is too long.
    """
    # Every second part is a special token of the template's own.
    own = control_pattern(tuple(special_tokens)).pattern
    parts = re.split(f"({own})", template)
    fences = _fences("".join(parts[::2]))
    for name, text in slots.items():
        if len(text) > MAX_SLOT:
            _say_cut(name)
            on_cut(name)
        slots[name] = _opened(sanitize(text, special_tokens), fences)
    parts[::2] = [
        neutralize(part.format(**slots), special_tokens) for part in parts[::2]
    ]
    return "".join(parts)


def sanitize(text: str, special_tokens: tuple[str, ...]) -> str:
    """`text` limited in length, encodable and without special tokens."""
    if len(text) > MAX_SLOT:
        half = MAX_SLOT // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return neutralize(text, special_tokens)


@functools.lru_cache
def _say_cut(name: str) -> None:
    """Warns once for each slot whose text was cut in the middle."""
    _log.warning(
        "A text for the slot {%s} of a prompt has more than %d characters: its middle "
        "is left out. This is said once; the metrics count it.", name, MAX_SLOT,
    )  # fmt: skip


def _opened(text: str, fences: re.Pattern | None) -> str:
    """`text` with fence tags in round brackets, and with spaces inside runs of
    punctuation."""

    def opened(fence: re.Match) -> str:
        return f"({fence[0][1:-1]})" if fence[0][0] == "<" else " ".join(fence[0])

    return fences.sub(opened, text) if fences else text


@functools.lru_cache
def _fences(template: str) -> re.Pattern | None:
    """Patterns of the fences of a template, tags in any case and spacing."""
    names = {re.escape(name) for name in _TAG.findall(template)}
    patterns = [rf"(?i:<\s{{0,9}}/?\s{{0,9}}(?:{'|'.join(sorted(names))})\s{{0,9}}/?>)"]
    marks = {match[1] for match in _RULE.finditer(template)}
    patterns = patterns if names else []
    patterns += [rf"{re.escape(mark)}{{3,}}" for mark in sorted(marks)]
    return re.compile("|".join(patterns)) if patterns else None

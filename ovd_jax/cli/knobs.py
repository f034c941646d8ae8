"""The knobs of a config: names, types, and messages for wrong ones."""

import difflib

from ml_collections import ConfigDict

from ovd_jax.cli.renamed import new_name

EXPECTED = {
    int: "an int",
    float: "a float",
    bool: "true or false",
    str: "a string",
    tuple: "a tuple such as '(1, 2)'",
}


def knobs(config: ConfigDict, prefix: str = "") -> dict[str, tuple[type, object]]:
    """Every knob by its dotted name, with its type and value."""
    found = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            found |= knobs(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = (config.get_type(name), value)
    return found


def check_file(config: ConfigDict, known: ConfigDict) -> str:
    """The message for a config file that changes the config `known`; empty if it is
    right. Wrong are unknown or missing knobs, and values of another type."""
    own, expected = knobs(config), knobs(known)
    for name, (_, value) in own.items():
        if name not in expected:
            return f"sets {name} = {value!r}, but {unknown(name, known)}"
        if not holds(expected[name], value):
            return mistyped(f"sets {name} = {value!r}", expected[name])
    for name in expected:
        if name not in own:
            return f"has no {name}; begin with get_config() of a shipped config."
    return ""


def holds(knob: tuple[type, object], value: object) -> bool:
    """True if `value` has the type of a knob (type, value now).

    Items of a tuple must have the types of the present items; without any they are
    strings.
    """
    kind, now = knob
    if value is None or kind is type(None):
        return now is None
    if kind is float:
        return type(value) in (int, float)
    if kind is tuple:
        items = now if isinstance(now, tuple) and now else ("",)
        kinds = {type(item) for item in items}
        kinds |= {int} if float in kinds else set()
        return isinstance(value, tuple) and {type(item) for item in value} <= kinds
    return type(value) is kind


def mistyped(written: str, knob: tuple[type, object]) -> str:
    """The message for a value that its knob cannot hold."""
    kind, now = knob
    expected = EXPECTED.get(kind, f"a {kind.__name__}")
    return f"{written}: expected {expected}; it is {now!r} now."


def unknown(name: str, config: ConfigDict) -> str:
    """The message for a knob that does not exist."""
    if said := new_name(name):
        return said
    inside = [knob for knob in knobs(config) if knob.startswith(f"{name}.")]
    if inside:
        examples = ", ".join(f"--config.{knob}" for knob in inside[:3])
        return f"{name} is a group of knobs; set them one by one, as in {examples}."
    return f"there is no such knob. {nearest(name, config)}"


def nearest(written: str, config: ConfigDict) -> str:
    """A question about the knob that was probably meant."""
    name = written.lstrip("-").removeprefix("config.").split("=")[0]
    known = knobs(config)

    def likeness(knob):
        whole = difflib.SequenceMatcher(None, name, knob).ratio()
        # `learning_rate` is meant for `optimizer.learning_rate`.
        ends = name.rsplit(".", 1)[-1], knob.rsplit(".", 1)[-1]
        return max(whole, difflib.SequenceMatcher(None, *ends).ratio()), whole

    best = max(known, key=likeness, default=None)
    if best is None or likeness(best)[0] < 0.6:
        return "See --help for all knobs."
    kind, now = known[best]
    return f"Did you mean --config.{best} ({kind.__name__}, now {now!r})?"

"""Knobs that were renamed. Saved configs with an old name load; on the command line and
in config files the old name is refused with the new one."""

RENAMED = {  # old dotted name: the name now
    "tokens_at_once": "microbatch_tokens",
    "turns.mask_void": "turns.mask_invalid",
    "turns.searches": "turns.max_observations",
}


def with_new_names(config: dict, prefix: str = "") -> dict:
    """A nested config with every old knob under its new name.

    A knob stays in its group. If both names are there, the new one counts.
    """
    renamed = {}
    for name, value in config.items():
        dotted = prefix + name
        if isinstance(value, dict):
            renamed[name] = with_new_names(value, f"{dotted}.")
        elif dotted not in RENAMED:
            renamed[name] = value
        else:
            new = RENAMED[dotted].rpartition(".")[2]
            renamed[new] = config.get(new, value)
    return renamed


def new_name(knob: str) -> str:
    """The message for a knob's old name; empty for any other."""
    if knob not in RENAMED:
        return ""
    return f"{knob} is called {RENAMED[knob]} now: --config.{RENAMED[knob]}."

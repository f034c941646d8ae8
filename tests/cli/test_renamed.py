"""Knobs that had another name once: saved configs load, anything else is told."""

import json

import pytest

from ovd_jax.cli import flags
from ovd_jax.cli.knobs import knobs
from ovd_jax.cli.renamed import RENAMED, with_new_names
from ovd_jax.errors import UsageError

DEFAULT = "configs/default.py"


def test_the_names_now_are_knobs_and_the_old_ones_are_not():
    known = knobs(flags.load_file(DEFAULT))
    assert set(RENAMED.values()) <= set(known)
    assert not set(RENAMED) & set(known)


def test_a_knob_keeps_its_group():
    groups = {old: (old.rpartition(".")[0], new.rpartition(".")[0])
              for old, new in RENAMED.items()}  # fmt: skip
    assert all(old == new for old, new in groups.values())


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_saved_config_with_an_old_name_loads(old, new, tmp_path):
    config = flags.load_file(DEFAULT)
    value = knobs(config)[new][1]
    saved = config.to_dict()
    group, _, name = new.rpartition(".")
    holder = saved[group] if group else saved
    del holder[name]
    changed = not value if isinstance(value, bool) else value + 1
    holder[old.rpartition(".")[2]] = changed
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = flags.load(tmp_path, default=DEFAULT)
    assert knobs(loaded)[new][1] == changed
    assert old not in knobs(loaded)


def test_of_both_names_the_new_one_counts():
    old, new = next((x, y) for x, y in RENAMED.items() if "." not in x)
    assert with_new_names({old: 1, new: 2}) == {new: 2}
    assert with_new_names({new: 2, old: 1}) == {new: 2}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_on_the_command_line_is_refused_with_the_new_one(old, new):
    with pytest.raises(UsageError, match=f"{old} is called {new} now"):
        flags.parse(["train", f"--config.{old}=1"], doc=None, default=DEFAULT)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_in_a_config_file_is_refused_with_the_new_one(old, new, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from configs import default\n"
        "def get_config():\n"
        "    config = default.get_config()\n"
        "    with config.unlocked():\n"
        f"        config.{old} = 1\n"
        "    return config\n"
    )
    with pytest.raises(UsageError, match=f"{old} is called {new} now"):
        flags.parse(["train", f"--config={path}"], doc=None, default=DEFAULT)

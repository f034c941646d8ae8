"""Configs are found by name and by path, in any folder and beside any other code."""

import sys

import pytest

from ovd_jax.cli import config_files
from ovd_jax.cli.config_files import load_file
from ovd_jax.errors import UsageError

MINE = """
from ml_collections import ConfigDict
{imports}
def get_config(text="nothing"):
    return ConfigDict({{"value": {value}}})
"""


def write_config(path, value="text", imports="") -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(MINE.format(value=value, imports=imports))
    return str(path)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of a user's own, who is in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("quickstart", "configs/quickstart.py"),
        ("webqa_search_r1", "configs/webqa_search_r1.py"),
        ("eval_qa:cot", "configs/eval_qa.py:cot"),
        ("compare_math:two", "configs/compare_math.py:two"),
    ],
)
def test_a_shipped_config_has_a_name_and_a_path_everywhere(elsewhere, name, path):
    assert load_file(name) == load_file(path)
    assert config_files.as_path(name) == path
    assert config_files.as_path(path) == path


def test_every_shipped_config_loads_by_its_name_in_another_folder(elsewhere):
    names = [path.stem for path in config_files.SHIPPED.glob("[a-z]*.py")]
    assert len(names) > 30
    for name in names:
        assert load_file(name).is_locked


def test_a_name_is_the_shipped_config_and_a_path_is_here_first(elsewhere):
    write_config(elsewhere / "configs" / "quickstart.py", value="1")
    write_config(elsewhere / "quickstart", value="2")
    assert load_file("configs/quickstart.py").value == 1
    assert load_file("quickstart").task == "arithmetic"


def test_a_config_of_ones_own_builds_on_a_shipped_one(elsewhere):
    path = write_config(
        elsewhere / "mine.py", "math.get_config().task", "from configs import math"
    )
    assert load_file(path).value == "math"
    assert load_file("./mine.py").value == "math"


def test_configs_of_ones_own_build_on_one_another(elsewhere):
    write_config(elsewhere / "configs" / "base.py", value="7")
    write_config(
        elsewhere / "configs" / "mine.py",
        "base.get_config().value + default.get_config().threshold",
        "from configs import base, default",
    )
    write_config(elsewhere / "configs" / "default.py")  # another one's
    shipped = load_file("default")
    assert load_file("configs/mine.py").value == 7 + shipped.threshold
    assert load_file("default") == shipped


def test_another_package_called_configs_stays_what_it_is(elsewhere, monkeypatch):
    write_config(elsewhere / "configs" / "__init__.py", value="1")
    write_config(elsewhere / "configs" / "default.py", value="2")
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(elsewhere))
    import configs.default as own

    before = list(sys.path)
    assert load_file("quickstart").num_steps == 130
    assert sys.modules["configs.default"] is own
    assert own.get_config().value == 2
    assert sys.path == before


def test_a_text_behind_the_name_reaches_get_config(elsewhere):
    path = write_config(elsewhere / "mine.py")
    assert load_file(path).value == "nothing"
    assert load_file(f"{path}:a:b").value == "a:b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quikstart", "no config of this name in .* Did you mean quickstart?"),
        ("webqa_serch_r1:x", "Did you mean webqa_search_r1?"),
        ("configs/quikstart.py", "no such file, here .* Did you mean quickstart?"),
        ("quickstart.py", "no such file, here .* Did you mean quickstart?"),
        ("__init__", "no such file"),
        ("", "no such file"),
        (".", "no such file"),
        ("..", "no such file"),
        ("~no_such_user/mine.py", "no such file"),
        ("nul\0.py", "no such file"),
        ("rows.jsonl", "not a Python file"),
        ("./mine", "not a Python file"),
    ],
)
def test_what_is_no_config_is_named(elsewhere, name, said):
    (elsewhere / "rows.jsonl").write_text("{}")
    (elsewhere / "mine").write_text("")
    with pytest.raises(UsageError, match=said) as error:
        load_file(name)
    assert str(error.value).startswith(f"--config={name.split(':')[0]}")


@pytest.mark.parametrize(
    "content",
    [
        "1 / 0",
        "x = (",
        "import no_such_module",
        "from configs import no_such",
        "",
        "\0",
    ],
)
def test_a_file_that_fails_is_a_users_mistake(elsewhere, content):
    (elsewhere / "mine.py").write_text(content)
    with pytest.raises(UsageError, match=r"^--config=mine\.py failed"):
        load_file("mine.py")
    assert load_file("quickstart").is_locked

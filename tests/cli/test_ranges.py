"""Numbers that no run could use are refused, by name, before anything is computed."""

import pytest

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.cli.ranges import RANGES, is_in, out_of_range

FREE = {  # any number, or looked at where they are used
    "seed", "entropy_coef", "async_batches", "distill.beta",
    "mesh.data", "mesh.fsdp", "mesh.tp",
}  # fmt: skip


def numbers(path: str) -> dict:
    """The knobs of a config file that hold numbers."""
    knobs = flags.knobs(flags.load_file(path))
    return {
        name: value
        for name, (kind, value) in knobs.items()
        if kind in (int, float) or (kind is tuple and value and is_number(value[0]))
    }


def is_number(item) -> bool:
    return isinstance(item, int | float)


@pytest.mark.parametrize("file", ["default", "sft"])
def test_every_number_has_a_range_or_is_free(file):
    assert numbers(f"configs/{file}.py").keys() <= RANGES.keys() | FREE


def test_every_range_is_of_a_knob_that_exists():
    files = sorted((ROOT / "configs").glob("[a-z]*.py"))
    files += (ROOT / "benchmarks" / "configs").glob("[a-z]*.py")
    known = set().union(*(flags.knobs(flags.load_file(str(file))) for file in files))
    assert RANGES.keys() <= known


def test_shipped_configs_are_in_range():
    for file in (ROOT / "configs").glob("[a-z]*.py"):
        assert not out_of_range(numbers(str(file))), file


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (1, "[1, inf)", True),
        (0, "[1, inf)", False),
        (0.0, "(0, 1]", False),
        (1.0, "(0, 1]", True),
        (1.0, "[0, 1)", False),
        (float("inf"), "(0, inf]", True),
        (float("inf"), "[0, inf)", False),
        (float("nan"), "[0, inf)", False),
    ],
)
def test_the_ends_of_an_interval(value, interval, expected):
    assert is_in(value, interval) is expected


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("samples", "0"),
        ("optimizer.learning_rate", "-1e-4"),
        ("top_p", "0"),
        ("temperature", "nan"),
        ("search.noise", "(0.0, 1.5)"),
    ],
)
def test_a_command_line_with_a_number_out_of_range_is_refused(capsys, knob, value):
    argv = ["train", "--config=configs/quickstart.py", f"--config.{knob}={value}"]
    with pytest.raises(SystemExit) as exit_:
        flags.run(lambda config: None, doc="", default="configs/default.py", argv=argv)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {knob} is ")
    assert RANGES[knob] in said

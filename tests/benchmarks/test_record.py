"""Where the results of benchmarks go, and what is recorded with them."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import memory_plots
import record

from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT

CONFIGS = sorted((ROOT / "benchmarks/configs").glob("[a-z]*.py"))


def prepared(path: Path, **changes):
    config = flags.load_file(str(path))
    config.update(changes)
    return record.prepare(config, str(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_only_the_default_settings_of_a_benchmark_write_published_results(path):
    config, output = prepared(path)
    assert output.path(".json") == record.PUBLISHED / f"{path.stem}.json"
    assert "publish" not in config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_benchmark_leaves_it_to_one_function_where_its_results_go(path):
    program = (path.parents[1] / path.name).read_text("utf-8")
    default = f'default="benchmarks/configs/{path.name}"'
    assert f"record.run(main, doc=__doc__, {default})" in " ".join(program.split())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("memory", {"lengths": (512,)}),
        ("memory", {"real": False}),
        ("theory", {"estimates": 1}),
        ("steady_state", {"num_steps": 3}),
        ("teacher", {"teacher": {"url": "http://127.0.0.1:1/v1"}}),
        ("quickstart", {"seeds": (7,)}),
        ("quickstart_search", {"search": {"topk": 1}}),
    ],
)
def test_other_settings_leave_published_results_alone(
    name, changes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = ROOT / f"benchmarks/configs/{name}.py"
    _, output = prepared(path, **changes)
    output.write({"rows": []})
    assert (tmp_path / "runs/benchmarks" / f"{name}.json").is_file()
    _, output = prepared(path, **changes, publish=True)
    assert output.folder == record.PUBLISHED


def test_results_say_by_what_they_were_measured(tmp_path):
    output = record.Output("speed", tmp_path, {"repeats": 1})
    assert output.read() == {}
    output.write({"rows": [1.5]})
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written == output.read()
    assert written["rows"] == [1.5]
    run = written["run"]
    assert run.keys() == {"commit", "date", "machine", "versions", "settings"}
    assert run["settings"] == {"repeats": 1}
    assert run["machine"]["cores"] >= 1
    assert {"python", "jax", "numpy"} <= run["versions"].keys()


def test_parts_of_results_that_are_not_measured_again_stay(tmp_path):
    output = record.Output("parts", tmp_path, {})
    output.write_parts({"a": 1, "b": 2})
    output.write_parts({"b": 3})
    found = output.read()
    assert (found["a"], found["b"]) == (1, 3)
    assert found["measured"].keys() == {"a", "b"}
    assert all("commit" in run for run in found["measured"].values())


def test_recorded_settings_name_no_folder():
    path = ROOT / "benchmarks/configs/search.py"
    _, output = prepared(path, corpus="/home/someone/wiki.jsonl", questions="a/b,c/d")
    settings = output.provenance()["settings"]
    assert settings == {"corpus": "wiki.jsonl", "questions": "b,d"}


def test_training_is_given_no_knob_of_the_benchmark():
    config, _ = prepared(ROOT / "benchmarks/configs/methods.py")
    assert {"seeds", "methods"} <= set(config)
    training = record.for_training(config)
    assert set(training) == set(flags.load_file("configs/default.py"))
    assert training.eval_problems == config.eval_problems


def point(length: int, samples: int, **sizes) -> dict:
    row = {"platform": "cpu:8", "student": "a/b", "method": "ovd", "eq_1": 2**30}
    return row | {"length": length, "samples": samples} | sizes


@pytest.mark.parametrize(
    "rows",
    [
        [point(1024, 1, temporaries=2**30)],
        [point(1024, 16, temporaries=2**30)],
        [point(4096, 1, temporaries=2**30), point(1024, 16, wanted=2**34)],
        [point(4096, 1, wanted=2**34)],
        [point(512, 1, temporaries=1) | {"platform": "v5e:2x4"}, point(9, 2, wanted=8)],
    ],
    ids=["one length", "several samples", "each once", "too large", "two platforms"],
)
def test_any_part_of_the_memory_grid_can_be_plotted(rows, tmp_path):
    memory_plots.compiled("a/b", rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000

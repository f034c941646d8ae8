"""A grid of runs is trained and evaluated, and goes on where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ovd_jax import compare
from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.errors import UserError
from ovd_jax.reporting import comparison
from ovd_jax.reporting.bars import plot_bars
from ovd_jax.wiring import grid

TINY = (
    "num_steps=2", "checkpoint_every=1", "problems_per_step=8", "samples=2",
    "eval_problems=8",
    "eval_rows=8", "minibatches=1", "epochs=1", "loggers=('tensorboard',)",
)  # fmt: skip


def tiny(folder, **changes) -> ConfigDict:
    config = flags.load_file("configs/compare_quickstart.py")
    with config.unlocked():
        config.run_dir = str(folder)
        config.overrides = TINY
        config.runs = ("RLVR: threshold=0", "threshold=5")
        config.seeds = (0,)
        config.eval_overrides = ("eval_problems=8", "eval_cache=none")
        config.update(changes)
    return config


def test_a_run_is_a_label_and_knobs():
    config = tiny("x", overrides=("num_steps=2",))
    run = grid.parse_run("OVD, 5: threshold=5 lora.rank=4", config)
    assert run.label == "OVD, 5"
    assert run.overrides == ("num_steps=2", "threshold=5", "lora.rank=4")
    assert (run.base, run.eval_base) == ("quickstart",) * 2
    assert grid.parse_run("method=grpo", config).label == "method=grpo"
    assert grid.parse_run("", config).label == "base"
    with pytest.raises(ValueError, match="has 'threshold'"):
        grid.parse_run("OVD: threshold seven", config)


def test_a_run_may_have_configs_of_its_own():
    config = tiny("x")
    run = grid.parse_run("R1: base=configs/grpo.py eval_base=configs/a.py", config)
    assert (run.base, run.eval_base) == ("configs/grpo.py", "configs/a.py")
    assert run.overrides == TINY
    untrained = grid.parse_run("base=", config)
    assert (untrained.base, untrained.eval_base) == ("", "quickstart")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"runs": ("bad: thresold=5",)}, "thresold"),
        ({"runs": ("bad: threshold=x",)}, "threshold=x"),
        ({"runs": ("bad: base=configs/nothing.py",)}, "nothing.py"),
        ({"tests": ("bad: test_treshold=5",)}, "test_treshold"),
        ({"eval_overrides": ("eval_problms=5",)}, "eval_problms"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(tmp_path, changes, named):
    with pytest.raises(ValueError, match=f"(?s)The run '.*{named}"):
        compare.main(tiny(tmp_path, **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["quickstart", "smollm2", "webqa", "webqa.py:baselines", "math", "math.py:two"],
)
def test_every_shipped_comparison_asks_for_knobs_that_are_there(name):
    name = name if "." in name else f"{name}.py"
    config = flags.load_file(f"configs/compare_{name}")
    runs = [grid.parse_run(text, config) for text in config.runs]
    tests = [grid.Test(*grid.parse(text)) for text in config.tests]
    grid.check(config, runs, tests)
    assert len({run.label for run in runs}) == len(runs) > 1
    assert len({test.overrides for test in tests}) == len(tests) > 0


def test_cells_of_other_knobs_have_other_folders(tmp_path):
    def folder(run, **changes):
        config = tiny(tmp_path, **changes)
        return grid.make_cell(config, grid.parse_run(run, config), 0).folder

    first = folder("a: threshold=5")
    assert folder("a: threshold=5") == first
    others = [
        folder("a: threshold=6"),
        folder("a: threshold=5", base="configs/math.py"),
        folder("a: base= threshold=5"),
    ]
    assert len({first, *others}) == 4


def test_the_error_is_over_seeds_or_else_the_bootstrap_s():
    def one(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    assert comparison.spread([one(0.5)])["error"] == pytest.approx(0.1)
    found = comparison.spread([one(0.4), one(0.6)])
    assert found["mean"] == pytest.approx(0.5)
    assert found["error"] == pytest.approx(0.02**0.5)
    assert comparison.shown(found) == "50.0 ± 14.1"


def test_a_cell_that_is_worked_on_is_left_alone(tmp_path):
    with compare.locked(tmp_path) as lock:
        code = "import time; time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[lock])
        with pytest.raises(ValueError, match="Another process works in"):
            with compare.locked(tmp_path):
                pass
    try:  # the program is gone, its child is not
        with pytest.raises(ValueError, match="Another process works in"):
            with compare.locked(tmp_path):
                pass
    finally:
        child.kill()
        child.wait()
    with compare.locked(tmp_path):
        pass


def test_bars_are_drawn_where_a_set_is_missing(tmp_path):
    value = {"mean": 0.5, "error": 0.1}
    series = {"a": {"x": value, "y": value}, "b": {"y": value}}
    plot_bars(series, tmp_path / "b.png", title="t", ylabel="y")
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_cell_is_trained_once_and_evaluated_with_every_test(tmp_path, capsys):
    config = tiny(
        tmp_path,
        runs=("before training: base=", "threshold=5"),
        tests=("alone: test_threshold=0", "at 5: test_threshold=5"),
    )
    compare.main(config)
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(r["run"], r["test"]) for r in first["rows"]] == [
        ("before training", "alone"), ("before training", "at 5"),
        ("threshold=5", "alone"), ("threshold=5", "at 5"),
    ]  # fmt: skip
    assert first["failed"] == []
    for name in ("sets.png", "reward_before.png", "eval_accuracy.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.log")}
    assert len(times) == 5
    compare.main(config)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.log")} == times
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["rows"] == first["rows"]


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_are_done(tmp_path, capsys):
    config = tiny(tmp_path, runs=("bad: model=nowhere", "good: threshold=5"))
    with pytest.raises(ValueError, match="1 of 2 cells failed"):
        compare.main(config)
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert [r["run"] for r in result["rows"]] == ["good"]
    assert "nowhere" in captured.err
    assert (Path(result["failed"][0]) / "train.log").is_file()


@pytest.mark.slow
def test_a_killed_cell_goes_on_from_its_checkpoint(tmp_path):
    program = [
        sys.executable, str(ROOT / "launch" / "compare.py"),
        f"--config.run_dir={tmp_path}", "--config.runs=('a: threshold=5',)",
        "--config.seeds=(0,)", f"--config.overrides={(*TINY, 'num_steps=12')!r}",
        "--config.eval_overrides=('eval_problems=8', 'eval_cache=none')",
    ]  # fmt: skip
    process = subprocess.Popen(
        program, start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("checkpoints/[2-9]*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    assert not list(tmp_path.rglob("train.done.json"))
    before = metrics.read_text().splitlines()[0]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = metrics.read_text().splitlines()
    assert rows[0] == before  # not trained anew: its wall times are the same
    assert [json.loads(row)["step"] for row in rows] == list(range(13))
    cells = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [cell["run"] for cell in cells] == ["a"]


@pytest.mark.parametrize(
    ("knob", "value", "said"),
    [
        ("runs", (), "runs is empty"),
        ("tests", (), "tests is empty"),
        ("seeds", (), "seeds is empty"),
        ("seeds", (0, 1, 0), "seeds has 0 twice"),
        ("runs", ("x: threshold=3", "x: threshold=5"), "runs has 'x' twice"),
        ("runs", ("x: seed=3",), "sets seed=3"),
        ("runs", ("x: threshold=3 run_dir=runs/x",), "sets run_dir=runs/x"),
        ("runs", ("x: base=",), "names no model"),
    ],
)
def test_a_comparison_that_tells_nothing_is_refused(knob, value, said, tmp_path):
    config = flags.load_file("configs/compare.py")
    config.update(runs=("x: threshold=3",), seeds=(0,), run_dir=str(tmp_path / "c"))
    config.base = "" if said == "names no model" else "quickstart"
    config.eval_base = "quickstart"
    config[knob] = value
    with pytest.raises(UserError, match=said):
        compare.main(config)
    assert not (tmp_path / "c").exists()

"""A run directory survives kill -9, resumes exactly and never chokes on a value."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links
from ovd_jax.reporting.run_dir import RunDir, check_origin, read_metrics

ROOT = Path(__file__).resolve().parents[2]


def filled(path, steps):
    """A closed run directory with a row and two samples for each of `steps`."""
    with RunDir(path, 0, loggers=()) as run:
        for step in range(steps):
            run.log(step, {"reward_before": step / 10})
            run.log_samples(step, [{"text": "a"}, {"text": "b"}])
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_resuming_drops_the_rows_of_its_first_step_and_later_ones(tmp_path):
    filled(tmp_path, 6)
    with RunDir(tmp_path, 4, loggers=()) as run:
        run.log(4, {"reward_before": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    assert read_metrics(tmp_path)[-1]["reward_before"] == 1.0
    samples = lines(tmp_path / "samples.jsonl")
    assert [row["step"] for row in samples] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_last_checkpoint_may_come_after_the_last_row(tmp_path):
    run = RunDir(tmp_path, 0, loggers=())
    run.log(0, {"reward_before": 0.5})
    run.sync()
    run.close()
    run.sync()
    assert len(read_metrics(tmp_path)) == 1


def test_starting_again_from_zero_leaves_no_old_row(tmp_path):
    filled(tmp_path, 3)
    RunDir(tmp_path, 0, loggers=()).close()
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("torn", [b'{"step": 2, "rew', b"\x00\x00\x00", b'{"a": "\xe2'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    filled(tmp_path, 2)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]
    with RunDir(tmp_path, 2, loggers=()) as run:
        run.log(2, {})
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl")] == [0, 1, 2]


def test_a_broken_line_in_the_middle_is_an_error_that_loses_nothing(tmp_path):
    path = filled(tmp_path, 2) / "metrics.jsonl"
    path.write_text("<<<<\n" + path.read_text())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        RunDir(tmp_path, 1, loggers=())
    assert path.read_bytes() == before


GARBAGE = {
    "nothing": b"",
    "zeros": b"\0" * 5000,
    "zeros and the rest of a row": b"\0" * 4096 + b'3, "text": "b"}\n',
    "a row cut off": b'{"step": 4, "text": "ab',
    "rows cut off, then zeros and whole rows": b'{"step": 4, "te\n' + b"\0\0\n" * 9
    + b'{"step": 5}\n{"step": 6, "a": 1}\n',
    "rows of other blocks": b'"}\n{"a": "\xff\n\n\n',
    "a whole later row": b'{"step": 4, "text": "\\u0000"}\n',
}  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("start", [1, 4])
def test_whatever_a_loss_of_power_left_behind_the_synced_rows_is_cut_off(
    garbage, start, tmp_path
):
    """The rows of four steps were on the disk."""
    filled(tmp_path, 4)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with open(tmp_path / name, "ab") as file:
            file.write(garbage)
    with RunDir(tmp_path, start, loggers=()) as run:
        run.log(start, {"reward_before": 0.5})
    steps = [row["step"] for row in lines(tmp_path / "metrics.jsonl")]
    assert steps == [*range(start), start]
    samples = [row["step"] for row in lines(tmp_path / "samples.jsonl")]
    assert samples == [step for step in range(start) for _ in "ab"]


def test_resuming_keeps_the_file_and_the_bytes_of_earlier_rows(tmp_path):
    """No copy is made: the file may be larger than what is left of the disk."""
    filled(tmp_path, 50)
    path = tmp_path / "samples.jsonl"
    before, file = path.read_bytes(), path.stat().st_ino
    RunDir(tmp_path, 30, loggers=()).close()
    assert path.stat().st_ino == file
    assert before.startswith(path.read_bytes())
    assert len(lines(path)) == 60
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "samples.jsonl"}


def test_rows_are_on_the_disk_when_a_checkpoint_begins_and_when_a_run_ends(tmp_path):
    """As a program that notes what it puts on the disk, and how long that was."""
    program = f"""
import os
synced, fsync = {{}}, os.fsync
def note(fd):
    fsync(fd)
    path = os.readlink(f"/proc/self/fd/{{fd}}")
    synced[os.path.basename(path)] = os.fstat(fd).st_size
os.fsync = note
from ovd_jax.cli import flags
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links
from ovd_jax.reporting.run_dir import RunDir, check_origin
folder = {str(tmp_path / "run")!r}
check_origin(folder, {{"model": "m", "fingerprint": "a"}}, resumed=False)
flags.save(flags.load_file("configs/quickstart.py"), folder)
run = RunDir(folder, 0, loggers=())
with run:
    for step in range(3):
        run.log(step, {{"accuracy": 0.5}})
        run.log_samples(step, [{{"text": "x" * 100}}])
    run.sync()
    size = lambda name: os.path.getsize(os.path.join(folder, name))
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert synced[name] == size(name) > 0, (name, synced)
    for name in ("config.json", "origin.json"):
        assert [n for n in synced if n.startswith(f".{{name}}.")], synced
    assert "run" in synced  # and that they are in it
    run.log(3, {{"accuracy": 0.5}})
assert synced["metrics.jsonl"] == size("metrics.jsonl"), synced
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


LINKED = ("config.json", "origin.json", "metrics.jsonl", "samples.jsonl", "curves.png")


@pytest.mark.parametrize("name", [*LINKED, "export", "checkpoints", "ahead/1.batch"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_a_run_folder_is_refused(name, dangling, tmp_path):
    (tmp_path / "run" / "ahead").mkdir(parents=True)
    target = tmp_path / "precious"
    if not dangling:
        target.mkdir()
    (tmp_path / "run" / name).symlink_to(target)
    with pytest.raises(UserError, match=f"{name} is a symbolic link"):
        refuse_links(tmp_path / "run")


def test_a_run_folder_may_be_a_link_itself_and_hold_others_further_down(tmp_path):
    (tmp_path / "disk" / "wandb").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "wandb" / "latest-run").symlink_to("run-1")
    refuse_links(tmp_path / "run")
    refuse_links(tmp_path / "new")


@pytest.mark.parametrize("name", LINKED[:4])
def test_no_link_is_written_through(name, tmp_path):
    """Even where one is put there after the folder was looked at."""
    target, run = tmp_path / "precious", tmp_path / "run"
    target.write_text("precious\n")
    run.mkdir()
    for copy in (name, f"{name}.tmp", name.replace(".json", ".tmp")):
        (run / copy).symlink_to(target)
    with contextlib.suppress(UserError):
        check_origin(run, {"model": "m", "fingerprint": "a"}, resumed=False)
        flags.save(flags.load_file("configs/quickstart.py"), run)
        RunDir(run, 0, loggers=()).close()
    assert target.read_text() == "precious\n"


def test_rows_of_finished_steps_outlive_kill_9(tmp_path):
    program = f"""
import os, signal
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links
from ovd_jax.reporting.run_dir import RunDir
run = RunDir({str(tmp_path)!r}, 0, loggers=())
for step in range(3):
    run.log(step, {{"accuracy": 0.5}})
    run.log_samples(step, [{{"text": "x" * 100_000}}])
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1, 2]
    assert len(lines(tmp_path / "samples.jsonl")) == 3


def test_values_of_every_kind_become_plain_json(tmp_path):
    with RunDir(tmp_path, 0, loggers=()) as run:
        run.log(
            0,
            {
                "loss": np.float32(0.5),
                "grad_norm": float("nan"),
                "ratio": np.array(np.inf),
                "score_histogram": np.arange(3),
                "tokens": np.int64(7),
            },
        )
    assert read_metrics(tmp_path) == [
        {
            "step": 0,
            "loss": 0.5,
            "grad_norm": None,
            "ratio": None,
            "score_histogram": [0, 1, 2],
            "tokens": 7,
        }
    ]


def test_samples_hold_any_text_and_always_the_step_of_the_run(tmp_path):
    text = "half a pair \ud83d, two\nlines\u2028"
    with RunDir(tmp_path, 0, loggers=()) as run:
        run.log_samples(3, [{"text": text, "step": "its own"}])
    assert lines(tmp_path / "samples.jsonl") == [{"step": 3, "text": text}]


def test_tensorboard_gets_the_scalars_and_forgets_the_steps_done_again(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    with RunDir(tmp_path, 5) as run:
        run.log(5, {"accuracy": 0.25, "score_histogram": [1, 2], "loss": float("nan")})
    (path,) = tmp_path.glob("events.*")
    data, events = path.read_bytes(), []
    while data:  # a record: length (8 bytes), its checksum (4), the event, checksum (4)
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    assert [(v.tag, v.simple_value) for e in events for v in e.summary.value] == [
        ("accuracy", 0.25)
    ]
    assert any(e.HasField("session_log") and e.step == 5 for e in events)


def test_an_unknown_logger_is_named_before_any_row_is_touched(tmp_path):
    filled(tmp_path, 2)
    with pytest.raises(ValueError, match="'tensorbord'; choose from tensorboard"):
        RunDir(tmp_path, 0, loggers=("tensorbord",))
    assert len(read_metrics(tmp_path)) == 2


def test_a_logger_that_is_not_installed_comes_with_its_remedy(tmp_path):
    code = f"""
import sys
sys.modules["wandb"] = None  # as if it were not installed
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.files import refuse_links
from ovd_jax.reporting.run_dir import RunDir
try:
    RunDir({str(tmp_path)!r}, 0, loggers=("wandb",))
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert "pip install wandb" in done.stdout


def test_a_run_goes_on_only_from_the_weights_it_started_from(tmp_path):
    first, other = ({"model": "m", "fingerprint": digest} for digest in ("a", "b"))
    check_origin(tmp_path, first, resumed=True)  # of a run from before it was noted
    check_origin(tmp_path, first, resumed=True)
    with pytest.raises(ValueError, match="started from m with other weights than m"):
        check_origin(tmp_path, other, resumed=True)
    check_origin(tmp_path, other, resumed=False)
    check_origin(tmp_path, other, resumed=True)

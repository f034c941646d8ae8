"""A run directory belongs to one process and one experiment at a time."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from ovd_jax import sft, train
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.reporting.run_dir import RunDir, check_origin, read_metrics
from ovd_jax.toy.tokenizers import FOLDER
from ovd_jax.wiring.run_identity import MAY_CHANGE, MAY_MOVE, locked, owns_run_dir

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = {"train": "configs/default.py", "sft": "configs/sft.py"}


def make_config(folder, *, program="train", **changes):
    """The config of a program, with knobs by their dotted names."""
    config = flags.load_file(DEFAULT[program]).copy_and_resolve_references()
    config.update_from_flattened_dict({"run_dir": str(folder)} | changes)
    return config


def run(config, *, steps=4, saved=True, finished=False, program="train"):
    """A run as the drivers make it, but that nothing is computed."""

    @owns_run_dir(default=DEFAULT[program])
    def main(config):
        folder = Path(config.run_dir)
        (folder / "checkpoints").mkdir(exist_ok=True)
        begun = len(read_metrics(folder)) if (folder / "metrics.jsonl").exists() else 0
        with RunDir(folder, begun, loggers=()) as opened:
            flags.save(config, folder)
            for step in range(begun, steps):
                opened.log(step, {"loss": 1.0})
        if saved:
            (folder / "checkpoints" / str(steps)).mkdir(exist_ok=True)
        if finished:
            (folder / "export").mkdir(exist_ok=True)

    main(config)


def refused(config, program="train") -> str:
    """What is said, in one line, of a run that must not go on; nothing is touched."""
    folder = Path(config.run_dir)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError) as error:
        run(config, program=program)
    assert (folder / "metrics.jsonl").read_bytes() == before
    said = str(error.value)
    assert "\n" not in said
    assert "--config.run_dir=DIR" in said
    assert "--config.resume=False" in said
    return said


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("threshold", 0.0), ("method", "grpo"), ("seed", 1), ("minibatches", 2),
        ("epochs", 3), ("problems_per_step", 8), ("samples", 4),
        ("optimizer.learning_rate", 1e-3), ("optimizer.schedule", "linear"),
        ("num_steps", 99), ("teacher.prompt", "digits"), ("search.noise", (0.0, 0.1)),
        ("lora.targets", ("q",)), ("arithmetic.max_value", 9), ("model", "world"),
        ("teacher.url", "http://127.0.0.1:1/v1"), ("scale_by_std", False),
        ("stop_strings", ("x",)),
    ],
)  # fmt: skip
def test_another_experiment_is_refused_by_the_knob_that_differs(
    tmp_path, finished, knob, value
):
    run(make_config(tmp_path), finished=finished)
    said = refused(make_config(tmp_path, **{knob: value}))
    old = dict(
        (name, value) for name, (_, value) in flags.knobs(make_config("x")).items()
    )[knob]
    assert f"{knob} (there {old!r}, here {value!r})" in said


def test_a_few_of_many_differing_knobs_are_named(tmp_path):
    run(make_config(tmp_path))
    config = flags.load_file("configs/quickstart_search.py")
    config = config.copy_and_resolve_references()
    config.run_dir = str(tmp_path)
    said = refused(config)
    assert said.count("(there ") == 5
    assert "more knobs" in said


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_steps": 1000},
        {"eval_every": 3, "eval_problems": 7, "eval_rows": 2, "eval_samples": 2},
        {"loggers": (), "checkpoint_every": 1, "export_dtype": "bfloat16"},
        {"teacher.timeout_s": 9.0, "search.retries": 1, "teacher.on_failure": "fail"},
        {"teacher.allow_http": True, "search.allow_http": True},
        {
            "collapse.window": 0,
            "microbatch_tokens": 64,
            "remat": "full",
            "mesh.fsdp": 1,
        },
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_run_goes_on_with_other_knobs_that_decide_nothing(
    tmp_path, finished, changes
):
    run(make_config(tmp_path), finished=finished)
    run(make_config(tmp_path, **changes), steps=6)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(6))
    assert flags.load(tmp_path).to_dict() == make_config(tmp_path, **changes).to_dict()


def test_what_may_change_is_a_knob_of_some_program():
    known = set()
    for file in DEFAULT.values():
        names = flags.knobs(flags.load_file(file))
        known |= names.keys() | {name.split(".")[0] for name in names}
    assert known >= MAY_CHANGE | MAY_MOVE


def test_a_server_may_move_but_not_come_or_go(tmp_path):
    here, there = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"
    run(make_config(tmp_path, **{"teacher.url": here}))
    run(make_config(tmp_path, **{"teacher.url": there}))
    assert "teacher.url" in refused(make_config(tmp_path))


def test_the_name_of_a_model_whose_weights_are_known_may_change(tmp_path):
    run(make_config(tmp_path))
    (tmp_path / "origin.json").write_text("{}")
    run(make_config(tmp_path, model="/elsewhere/student"))


def test_sft_is_held_to_its_config_too(tmp_path):
    run(make_config(tmp_path, program="sft"), program="sft")
    run(make_config(tmp_path, program="sft", log_every=1), program="sft")
    for knob, value in {"batch_size": 8, "packed": True, "num_steps": 9}.items():
        other = make_config(tmp_path, program="sft", **{knob: value})
        assert knob in refused(other, program="sft")


def test_a_run_of_another_program_is_refused(tmp_path):
    run(make_config(tmp_path, program="sft"), program="sft")
    assert "batch_size (a knob there alone)" in refused(make_config(tmp_path))


def test_knobs_that_came_later_have_their_defaults_in_an_old_run(tmp_path):
    run(make_config(tmp_path))
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    del old["beta"], old["teacher"]["score_rule"]
    path.write_text(json.dumps(old))
    run(make_config(tmp_path))
    path.write_text(json.dumps(old))
    assert "beta (there 2.0, here 3.0)" in refused(make_config(tmp_path, beta=3.0))


def test_a_run_that_never_logged_a_step_holds_nobody_up(tmp_path):
    run(make_config(tmp_path), steps=0, saved=False)
    run(make_config(tmp_path, threshold=3))


@pytest.mark.parametrize("there", ["metrics.jsonl", "checkpoints/3"])
def test_a_folder_that_is_no_run_of_ours_is_left_alone(tmp_path, there):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).mkdir() if "/" in there else (tmp_path / there).write_text("x\n")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        run(make_config(tmp_path))


def test_a_config_that_was_damaged_is_named(tmp_path):
    run(make_config(tmp_path))
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        run(make_config(tmp_path))


@pytest.mark.parametrize("steps", [4, 25])
def test_deleted_checkpoints_are_asked_about_before_rows_are_dropped(tmp_path, steps):
    run(make_config(tmp_path), steps=steps)
    shutil.rmtree(tmp_path / "checkpoints")
    assert f"{steps} logged steps, but its" in refused(make_config(tmp_path))


def test_emptied_checkpoints_are_asked_about_too(tmp_path):
    run(make_config(tmp_path), steps=21)  # checkpoint_every is 10
    (tmp_path / "checkpoints" / "21").rmdir()
    assert "are gone" in refused(make_config(tmp_path))


def test_a_finished_run_without_checkpoints_is_not_begun_again(tmp_path):
    run(make_config(tmp_path, checkpoint_every=0), saved=False, finished=True)
    assert "are gone" in refused(make_config(tmp_path, checkpoint_every=0))


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path):
    run(make_config(tmp_path), saved=False)
    run(make_config(tmp_path), steps=6)


def test_beginning_anew_moves_the_old_run_aside(tmp_path, capsys):
    folder = tmp_path / "run"
    for number, threshold in enumerate((7, 5, 3)):
        run(make_config(folder, threshold=threshold, resume=not number))
    assert flags.load(folder).threshold == 3
    assert flags.load(tmp_path / "run.old1").threshold == 7
    assert flags.load(tmp_path / "run.old2").threshold == 5
    assert len(read_metrics(tmp_path / "run.old1")) == 4
    assert f"is now in {tmp_path}/run.old2" in capsys.readouterr().err
    assert "seed" in refused(make_config(folder, threshold=3, seed=1))


def test_a_folder_without_a_run_is_not_moved(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run(make_config(tmp_path, resume=False))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_behind_a_link_is_moved_where_it_is(tmp_path):
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    run(make_config(tmp_path / "run"))
    run(make_config(tmp_path / "run", resume=False), steps=5)
    assert (tmp_path / "run").is_symlink()
    assert len(read_metrics(tmp_path / "disk" / "run")) == 5
    assert len(read_metrics(tmp_path / "disk" / "run.old1")) == 4


HOLD = """
import sys, time
from pathlib import Path
from ovd_jax.wiring.run_identity import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the run directory `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_use_is_refused_with_who_uses_it(tmp_path, holder, resume):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(UserError) as error:
        run(make_config(tmp_path, resume=resume))
    where = f"process {holder.pid} on {socket.gethostname()}"
    assert f"{tmp_path} is in use by {where}" in str(error.value)
    assert tmp_path.is_dir()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert json.loads((tmp_path / "run.lock.json").read_text())["pid"] == holder.pid
    run(make_config(tmp_path))
    assert not (tmp_path / "run.lock.json").exists()


def test_the_lock_is_free_once_a_run_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            _ = 1 / 0


@pytest.mark.slow
def test_the_commands_of_train_py_do_two_experiments(tmp_path):
    text = (ROOT / "launch" / "train.py").read_text().split('"""')[1]
    commands = text.replace("\\\n", " ").split("\n\n")[1].splitlines()
    assert len(commands) == 2
    small = (
        "num_steps=1", "eval_problems=4", "problems_per_step=4", "minibatches=1",
        "epochs=1", "loggers=()",
    )  # fmt: skip
    folders = []
    started = time.monotonic()
    for command in commands:
        _, script, *arguments = command.split()
        arguments = [x.replace("runs/", f"{tmp_path}/") for x in arguments]
        if not any("run_dir" in x for x in arguments):
            arguments.append(f"--config.run_dir={tmp_path}/quickstart")
        arguments += [f"--config.{knob}" for knob in small]
        done = subprocess.run(
            [sys.executable, script, *arguments], cwd=ROOT, capture_output=True,
            text=True, timeout=300, env=os.environ,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        folders.append(json.loads(done.stdout.splitlines()[-1])["run_dir"])
    assert [flags.load(folder).threshold for folder in folders] == [5, 7]
    assert time.monotonic() - started < 300


@pytest.mark.parametrize("name", ["run.lock", "run.lock.json", "metrics.jsonl"])
def test_a_link_in_a_strangers_run_folder_is_not_written_through(name, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(precious)
    with pytest.raises(UserError, match="is a symbolic link"):
        with locked(tmp_path / "run"):
            pass
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    ("program", "changes"),
    [
        ("train", {}),
        ("train", {"teacher.model": "UNREADABLE"}),
        ("train", {"method": "grpo", "lora.rank": 2}),
        ("sft", {}),
        ("sft", {"lora.rank": 2}),
    ],
)
def test_other_weights_are_refused_before_any_are_read(program, changes, tmp_path):
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(FOLDER / "student", model)
    (model / "model.safetensors").write_bytes(b"no weights")
    changes = {
        name: str(model) if value == "UNREADABLE" else value
        for name, value in {"model": str(model), **changes}.items()
    }
    config = make_config(folder, program=program, **changes)
    flags.save(config, folder)
    checkpoints = Checkpoints(folder, every=1)
    state = ocp.args.StandardSave({"step": np.zeros(1)})
    checkpoints.manager.save(1, args=state)
    checkpoints.close()
    check_origin(folder, {"model": "m", "fingerprint": "a"}, resumed=False)
    with pytest.raises(UserError, match="started from m with other weights than"):
        {"train": train, "sft": sft}[program].main(config)

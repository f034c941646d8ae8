"""Meshes of 4 and 8 devices, and 2 processes, give what one device gives."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovd_jax.reporting.run_dir import read_metrics

pytestmark = pytest.mark.multiprocess

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "mesh_program.py"
MESHES = ((1, 4, 1), (1, 2, 2), (2, 2, 2), (1, 2, 4))
ACROSS = ((2, 2, 1), (1, 1, 4))  # of two processes with two devices each
LIMIT_S = 500


def environment(devices: int) -> dict:
    """For a program that has `devices` virtual devices."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": path,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }


def run_together(commands, *, devices: int) -> list[str]:
    """What each of several programs, running at the same time, wrote to stdout."""
    started = [
        subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(devices), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command in commands
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=LIMIT_S) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [text for text, _ in outputs]


def without_gloo(stdout: str) -> str:
    """Without the reports of Gloo, whose threads write into one another's lines."""
    report = r"\[Gloo\]|Rank|is connected to|peer ranks|Expected number of connected"
    return re.sub(rf"{report}|is :|[\d.\s]", "", stdout)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def numbers(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The program's results by mesh and name."""
    found = {}
    with np.load(path) as file:
        for key in file.files:
            mesh, name = key.split("/", 1)
            found.setdefault(mesh, {})[name] = file[key]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("meshes")


@pytest.fixture(scope="module")
def by_mesh(folder):
    """Results without a mesh and on every mesh of one process."""
    path = folder / "one.npz"
    meshes = json.dumps([None, *MESHES])
    run_together([[str(PROGRAM), str(path), meshes]], devices=8)
    return numbers(path)


@pytest.fixture(scope="module")
def by_mesh_of_two(folder):
    """Results of two processes."""
    path, address = folder / "two.npz", free_address()
    meshes = json.dumps(ACROSS)
    run_together(
        [[str(PROGRAM), str(path), meshes, address, "2", str(n)] for n in range(2)],
        devices=2,
    )
    return numbers(path)


def assert_equal(actual, expected):
    """Tokens exactly, numbers to 1e-5, but the programs' own sizes."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        if name.startswith("sample/tokens"):
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        elif not name.endswith(("largest", "loops")):
            np.testing.assert_allclose(
                value, expected[name], atol=1e-5, rtol=1e-5, err_msg=name
            )


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_mesh_learns_and_samples_what_one_device_does(mesh, by_mesh):
    """Gradients' moments, weights and metrics after two steps; tokens; label
    probabilities; a loss and its gradients."""
    assert_equal(by_mesh[str(list(mesh))], by_mesh["None"])
    moments = [x for name, x in by_mesh["None"].items() if "update/mu" in name]
    assert max(np.abs(moment).max() for moment in moments) > 1e-3


@pytest.mark.parametrize("mesh", ACROSS, ids=str)
def test_two_processes_learn_and_sample_what_one_does(mesh, by_mesh, by_mesh_of_two):
    assert_equal(by_mesh_of_two[str(list(mesh))], by_mesh["None"])


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_chunked_loss_equals_the_dense_one_on_a_mesh(mesh, by_mesh):
    """By itself, from log-probabilities alone, and as a divergence from a teacher."""
    found = by_mesh[str(list(mesh))]
    for what, forms, count in (
        ("loss", ("chunked", "later"), 4),  # two sums, and gradients by states and head
        ("divergence", ("chunked", "top"), 6),
    ):
        names = [name for name in found if name.startswith(f"{what}/dense/")]
        assert len(names) == count
        for name in names:
            for form in forms:
                np.testing.assert_allclose(
                    found[name.replace("dense", form)], found[name], atol=1e-5,
                    rtol=1e-5, err_msg=f"{form} {name}",
                )  # fmt: skip


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_no_device_sees_its_tokens_times_its_vocabulary(mesh, by_mesh):
    """240 tokens, 64 words, width 8; chunks of 5. In the loop over chunks, devices that
    share a vocabulary exchange three numbers a token."""
    found, (data, fsdp, tp) = by_mesh[str(list(mesh))], mesh
    logits = 240 // (data * fsdp) * (64 // tp)
    assert found["loss/chunked largest"] < logits <= found["loss/dense largest"]
    assert found["loss/chunked exchanged in loops"] <= 3 * 5
    assert found["divergence/chunked largest"] < logits
    assert found["divergence/chunked exchanged in loops"] <= 3 * 5


KNOBS = (
    "num_steps=2", "eval_problems=8", "problems_per_step=16", "max_new_tokens=48",
    "eval_every=0", "loggers=()", "checkpoint_every=1", "microbatch_tokens=2048",
)  # fmt: skip


def train(run: Path, *, processes: int, devices: int, knobs=()) -> list[str]:
    """What each process of a run of the quickstart wrote to stdout."""
    address = free_address() if processes > 1 else ""
    return run_together(
        [
            [
                "launch/train.py", "--config=configs/quickstart.py",
                *(f"--config.{knob}" for knob in (*KNOBS, *knobs)),
                f"--config.run_dir={run}", f"--config.distributed.process={number}",
                f"--config.distributed.coordinator={address}",
                f"--config.distributed.processes={processes}",
            ]
            for number in range(processes)
        ],
        devices=devices,
    )  # fmt: skip


def rows_of(run: Path) -> list[dict]:
    """Metrics but for what times and compilations were."""
    varying = ("seconds_", "tokens_per_s", "compiles", "rss_mib", "teacher_wait")
    return [
        {name: value for name, value in row.items() if not name.startswith(varying)}
        for row in read_metrics(run)
    ]


def weights_of(run: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(run / "export" / "model.safetensors")


@pytest.fixture(scope="module")
def one_device(folder):
    train(folder / "one", processes=1, devices=1)
    return folder / "one"


def solutions(run: Path) -> list[list[str]]:
    """The student's, as it sampled them."""
    lines = (run / "samples.jsonl").read_text().splitlines()
    return [json.loads(line)["student"]["steps"] for line in lines]


def assert_same_run(actual: Path, expected: Path):
    """Rows once each and alike, the very same samples, and weights but for rounding."""
    for mine, other in zip(rows_of(actual), rows_of(expected), strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            np.testing.assert_allclose(value, other[name], rtol=2e-3, atol=2e-4)
    assert solutions(actual) == solutions(expected)
    weights, others = weights_of(actual), weights_of(expected)
    for name, value in weights.items():
        np.testing.assert_allclose(value, others[name], atol=2e-4, err_msg=name)


def test_a_run_on_four_devices_ends_as_on_one(folder, one_device):
    run = folder / "four"
    knobs = ("mesh.data=1", "mesh.fsdp=2", "mesh.tp=2")
    train(run, processes=1, devices=4, knobs=knobs)
    assert_same_run(run, one_device)


def test_a_run_of_two_processes_ends_as_of_one_and_writes_once(folder, one_device):
    run = folder / "two"
    knobs = ("mesh.data=-1", "mesh.fsdp=2")
    first, second = train(run, processes=2, devices=2, knobs=knobs)
    assert_same_run(run, one_device)
    assert json.loads(first.splitlines()[-1])["run_dir"] == str(run)
    assert not without_gloo(second)
    steps = [row["step"] for row in read_metrics(run)]
    assert steps == [0, 1, 2]
    before = weights_of(run)
    for processes, devices in ((2, 2), (1, 1)):  # from their checkpoint, as they like
        train(run, processes=processes, devices=devices)
        for name, value in weights_of(run).items():
            np.testing.assert_array_equal(value, before[name])

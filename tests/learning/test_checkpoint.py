"""A saved state comes back bit by bit; a killed run ends where an unbroken one does."""

import dataclasses
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.errors import UserError
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.update import TrainState, optimizer
from ovd_jax.models import hf
from ovd_jax.models.transformer import Transformer, TransformerConfig
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.toy.tokenizers import arithmetic_tokenizer

# An error in a thread of the libraries', such as "Event loop is closed".
pytestmark = pytest.mark.filterwarnings(
    "error::pytest.PytestUnraisableExceptionWarning"
)
ROOT = Path(__file__).resolve().parents[2]
TX = optimizer(
    learning_rate=0.1, schedule="cosine", warmup_steps=2, total_steps=9,
    weight_decay=0.1, b1=0.9, b2=0.99, grad_clip=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def make_state(model):
    """`make_state(step)`: every array filled with random bits, as long as they are no
    NaN: zeros of both signs, denormals and 1e38 are among them."""

    def make(step: int) -> TrainState:
        rng = np.random.default_rng(step)

        def draw(leaf):
            bits = rng.integers(0, 2**32, leaf.shape, np.uint32)
            if leaf.dtype != jnp.float32:
                return jnp.asarray(bits & 1).astype(leaf.dtype)
            values = np.asarray(bits).view(np.float32)
            return jnp.asarray(np.where(np.isnan(values), np.float32(-0.0), values))

        state = jax.tree.map(draw, TrainState.create(model, TX))
        return state.replace(step=jnp.asarray(step, jnp.int32))

    return make


@pytest.fixture
def checkpoints(tmp_path):
    """`checkpoints(every=, keep=)`, as a process that starts again opens them."""
    opened = []

    def reopen(*, every=1, keep=2):
        for manager in opened:
            manager.close()
        opened[:] = [Checkpoints(tmp_path, every=every, keep=keep)]
        return opened[0]

    yield reopen
    for manager in opened:
        manager.close()


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def saved_steps(tmp_path) -> list[int]:
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def test_a_state_comes_back_bit_by_bit(checkpoints, make_state):
    checkpoints().save(make_state(3))
    assert_same_bits(checkpoints().restore_latest(make_state(0)), make_state(3))


def test_a_state_is_saved_as_it_was_before_it_was_donated(checkpoints, make_state):
    """Orbax still writes in the background when the next step reuses the memory."""
    overwrite = jax.jit(
        lambda state: jax.tree.map(jnp.zeros_like, state), donate_argnums=0
    )
    state, opened = make_state(3), checkpoints()
    opened.save(state)
    for _ in range(3):
        state = overwrite(state)
    assert_same_bits(checkpoints().restore_latest(state), make_state(3))


def test_what_must_be_on_the_disk_is_there_before_a_state_is_saved(
    checkpoints, make_state, tmp_path
):
    """Whether a save is due or forced; none is made, none is asked for."""
    opened, seen = checkpoints(every=2), []
    opened.before_save = lambda: seen.append(saved_steps(tmp_path))
    for step, force in ((1, False), (2, False), (2, True), (3, True)):
        opened.save(make_state(step), force=force)
        opened.manager.wait_until_finished()
    assert seen == [[], [2]]


def test_without_a_checkpoint_the_state_is_left_as_it_is(checkpoints, make_state):
    state = make_state(0)
    assert checkpoints().restore_latest(state) is state


def test_saves_fall_on_multiples_and_the_newest_two_are_kept(
    checkpoints, make_state, tmp_path
):
    opened = checkpoints(every=2)
    for step in range(1, 14):
        opened.save(make_state(step), unit=2)
        opened.manager.wait_until_finished()
        multiples = list(range(4, step + 1, 4))
        assert saved_steps(tmp_path) == multiples[-2:]
    for _ in range(2):  # the second time there is nothing to do
        opened.save(make_state(13), force=True)
    opened.manager.wait_until_finished()
    assert saved_steps(tmp_path) == [12, 13]


def test_every_0_saves_only_by_force(checkpoints, make_state, tmp_path):
    opened = checkpoints(every=0)
    opened.save(make_state(4))
    opened.manager.wait_until_finished()
    assert saved_steps(tmp_path) == []
    opened.save(make_state(5), force=True)
    assert_same_bits(checkpoints().restore_latest(make_state(0)), make_state(5))


def largest_file(folder: Path) -> Path:
    files = (path for path in folder.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


DAMAGES = {
    "weights cut short": lambda folder: os.truncate(largest_file(folder), 5000),
    "weights gone": lambda folder: largest_file(folder).unlink(),
    "no index": lambda folder: (folder / "default" / "manifest.ocdbt").unlink(),
    "empty metadata": lambda folder: os.truncate(folder / "default" / "_METADATA", 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_deleted_and_saved_again(
    damage, checkpoints, make_state, tmp_path
):
    opened = checkpoints()
    for step in (3, 4):
        opened.save(make_state(step))
    opened.close()
    DAMAGES[damage](tmp_path / "checkpoints" / "4")
    opened = checkpoints()
    with pytest.warns(UserWarning, match=r"Deleted checkpoints .* \(step 4: .*older"):
        state = opened.restore_latest(make_state(0))
    assert_same_bits(state, make_state(3))
    assert saved_steps(tmp_path) == [3]
    opened.save(make_state(4))  # training comes to the same state again
    assert_same_bits(checkpoints().restore_latest(make_state(0)), make_state(4))
    assert saved_steps(tmp_path) == [3, 4]


@pytest.mark.parametrize("saved", [4, 5, 6])
def test_a_forced_save_is_made_where_a_damaged_one_was_or_before_it(
    saved, checkpoints, make_state, tmp_path
):
    """Two newer ones are damaged, each in its own way."""
    opened = checkpoints(keep=3)
    for step in (3, 5, 6):
        opened.save(make_state(step))
    opened.close()
    DAMAGES["weights cut short"](tmp_path / "checkpoints" / "5")
    DAMAGES["no index"](tmp_path / "checkpoints" / "6")
    opened = checkpoints(every=100)
    with pytest.warns(UserWarning, match="step 6: .*step 5: "):
        opened.restore_latest(make_state(0))
    opened.save(make_state(saved), force=True)
    assert_same_bits(checkpoints().restore_latest(make_state(0)), make_state(saved))


def test_where_every_checkpoint_is_damaged_that_is_an_error(
    checkpoints, make_state, tmp_path
):
    checkpoints().save(make_state(3))
    opened = checkpoints()
    DAMAGES["weights gone"](tmp_path / "checkpoints" / "3")
    with pytest.raises(ValueError, match=r"they are damaged .* another run_dir"):
        opened.restore_latest(make_state(0))
    assert saved_steps(tmp_path) == [3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 24}, r"its model\.\S+ is of shape \S+ \d+\), not "),
        ({"qk_norm": True}, r"it has no model\.\S+norm"),
        ({"tied_head": True}, "it has model.head.* too"),
    ],
)
def test_the_checkpoint_of_another_model_is_refused(
    changes, said, checkpoints, make_state, config, make_model, tmp_path
):
    opened = checkpoints()
    for step in (2, 3):
        opened.save(make_state(step))
    other = make_model(dataclasses.replace(config, **changes))
    match = rf"step 3 in .* does not fit this config: {said}"
    with pytest.raises(UserError, match=match):
        checkpoints().restore_latest(TrainState.create(other, TX))
    assert saved_steps(tmp_path) == [2, 3]


def test_what_an_interrupted_save_left_behind_is_no_checkpoint(
    checkpoints, make_state, tmp_path
):
    checkpoints().save(make_state(3))
    checkpoints().close()
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    largest_file(folder / "4.orbax-checkpoint-tmp").unlink()
    opened = checkpoints()
    assert_same_bits(opened.restore_latest(make_state(0)), make_state(3))
    opened.save(make_state(4))
    assert_same_bits(checkpoints().restore_latest(make_state(0)), make_state(4))


STEPS = 12
ONE_OPERATION = ("min_operations=1", "max_operations=1")
SFT = (
    "num_steps=250", "batch_size=32", "sort_window=2", "judged_share=0.5",
    "checkpoint_every=0", "optimizer.learning_rate=3e-3", "optimizer.warmup_steps=20",
    *(f"arithmetic.{knob}" for knob in ONE_OPERATION),
)  # fmt: skip
TRAIN = (
    f"num_steps={STEPS}", "problems_per_step=4", "samples=4", "loggers=()",
    "minibatches=2", "epochs=2", "optimizer.learning_rate=1e-3", "kl_coef=0.01",
    "max_prompt_tokens=8", "max_new_tokens=24", "length_multiple=32", "min_rows=16",
    "teacher.max_new_tokens=24", "eval_every=5", "eval_problems=8",
    "checkpoint_every=3",
    *(f"arithmetic.{knob}" for knob in ONE_OPERATION),
)  # fmt: skip


class Runner:
    """Starts the programs of launch/, which share a cache of compiled programs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }

    def start(self, program: str, *knobs: str) -> subprocess.Popen:
        flags = [f"--config.{knob}" for knob in knobs]
        command = [sys.executable, f"launch/{program}.py", *flags]
        with open(self.folder / "log.txt", "a") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=log, stderr=log
            )

    def finish(self, *arguments: str) -> None:
        assert self.start(*arguments).wait() == 0, (self.folder / "log.txt").read_text()

    def kill(self, moment, *arguments: str) -> None:
        """Starts a program, and kills it as soon as `moment()` is true."""
        process = self.start(*arguments)
        while process.poll() is None and not moment():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        log = (self.folder / "log.txt").read_text()
        assert process.wait() == -signal.SIGKILL, log


def reached(run: Path, rows: int, seconds: float) -> bool:
    """Whether the run has logged `rows` rows, told some time after the fact."""
    path = run / "metrics.jsonl"
    if not path.exists() or path.read_bytes().count(b"\n") < rows:
        return False
    time.sleep(seconds)
    return True


def results(run: Path):
    """Metrics but for what times and compilations were, samples, and weights."""
    varying = (
        "seconds_", "tokens_per_s", "teacher_wait_share", "compiles", "rss_mib",
    )  # fmt: skip
    metrics = [
        {name: value for name, value in row.items() if not name.startswith(varying)}
        for row in read_metrics(run)
    ]
    return metrics, *(
        (run / name).read_bytes()
        for name in ("samples.jsonl", "export/model.safetensors")
    )


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("async_batches", [0, 1])
def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(async_batches, tmp_path):
    """Killed while it first writes a checkpoint, then in the middle of two steps."""
    runner, whole, broken = Runner(tmp_path), tmp_path / "whole", tmp_path / "broken"
    tokenizer = arithmetic_tokenizer()
    sizes = TransformerConfig(
        vocab_size=len(tokenizer), width=48, num_layers=2, num_heads=2, num_kv_heads=2,
        head_dim=24, mlp_width=96,
    )  # fmt: skip
    fresh = Transformer(sizes, jax.random.key(0))
    hf.save(fresh, tmp_path / "fresh", tokenizer)
    runner.finish("sft", f"model={tmp_path}/fresh", f"run_dir={tmp_path}/sft", *SFT)
    taught = tmp_path / "sft" / "export"
    train = ("train", f"model={taught}", f"teacher.model={taught}", *TRAIN)
    train += (f"async_batches={async_batches}", f"importance_cap={2.0 * async_batches}")
    runner.finish(*train, f"run_dir={whole}")
    assert any(row["replaced_share"] for row in read_metrics(whole)[:-1])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        exported = (whole / "export" / name).read_bytes()
        assert exported == (taught / name).read_bytes()
    staleness = [row["staleness"] for row in read_metrics(whole)[:-1]]
    assert staleness == [0] + [async_batches] * (STEPS - 1)
    step_seconds = np.median(
        [row["seconds_collect"] for row in read_metrics(whole)[:-1]]
    )
    rng = random.Random(0)

    def saving():
        return any(broken.glob("checkpoints/*tmp*"))

    runner.kill(saving, *train, f"run_dir={broken}")
    for rows in (rng.choice((5, 6)), rng.choice((9, 10))):
        moment = functools.partial(reached, broken, rows, rng.random() * step_seconds)
        runner.kill(moment, *train, f"run_dir={broken}")
    runner.finish(*train, f"run_dir={broken}")
    assert [row["step"] for row in read_metrics(broken)] == list(range(STEPS + 1))
    for actual, expected in zip(results(broken), results(whole), strict=True):
        assert actual == expected

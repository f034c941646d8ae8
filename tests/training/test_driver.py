"""What the driver of training hands from one part to the next."""

import threading
import types
from unittest import mock

import fakes
import jax.numpy as jnp
import pytest

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.reporting.monitor import Monitor
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.training.prefetch import DeviceLock, RolloutPrefetcher


class Learner:
    """Notes the seeds that it learns with, and whether the devices are locked."""

    objective = types.SimpleNamespace(pairs=False)

    def __init__(self, device: DeviceLock):
        self._device = device
        self.seeds, self.locked = [], []

    def learn(self, state, batch, *, microbatch, seed):
        self.seeds.append(seed)
        self.locked.append(self._device._lock.locked())
        return state + 1, {"loss": 0.5}


def updated(steps: int, **changes):
    """(learner, metrics of each step) of a run's updates."""
    config = flags.load_file("configs/default.py")
    with config.unlocked():
        config.update(changes)
    run = object.__new__(train.Training)  # without models
    run.config, run.token_teacher, run.monitor = config, None, Monitor()
    run.device = DeviceLock()
    run.tx = types.SimpleNamespace(learning_rate=lambda state: 0.25 * state)
    group = fakes.group(fakes.kept(fakes.trajectory(2), 0.0))
    buffer = RolloutBuffer((group,), ([[0.0]],), levels=10)
    learner, state, rows = Learner(run.device), 0, []
    for step in range(steps):
        state, metrics = run.update(learner, state, buffer, step)
        rows.append(metrics)
    return learner, rows


def test_each_step_orders_its_minibatches_by_a_seed_of_its_own():
    first, second = updated(6)[0].seeds, updated(6, seed=1)[0].seeds
    assert len({*first, *second}) == 12
    assert updated(6)[0].seeds == first


def test_an_update_has_the_devices_to_itself():
    learner, _ = updated(2)
    assert learner.locked == [True, True]
    assert not learner._device._lock.locked()


def test_the_learning_rate_that_is_logged_is_the_optimizers_after_the_update():
    _, rows = updated(3)
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.25, 0.5, 0.75])
    assert [row["loss"] for row in rows] == [0.5] * 3


def test_a_batch_ahead_is_sampled_on_after_the_update_from_its_weights(tmp_path):
    """As a student is that goes on from a step of its teacher."""
    updated = threading.Event()
    sampler = DeviceLock().sampler(lambda model: float(model["w"]))

    def collect(model, step):
        return sampler(model), updated.wait(10), sampler(model)

    prefetcher = RolloutPrefetcher(collect, batches=1, folder=tmp_path)
    model = {"w": jnp.float32(3.0)}
    prefetcher.start(model, 1, sampler)
    model["w"].delete()
    updated.set()
    assert prefetcher.next({"w": jnp.float32(4.0)}, 1)[0] == (3.0, True, 3.0)


class Bare(train.Training):
    """The loop over the steps; each takes three optimizer steps and changes nothing."""

    def __init__(self, config, begun_at: int = 0):
        self.config, self.checkpoints = config, self
        self.begun_at, self.done = begun_at, []

    def restored_state(self):
        return types.SimpleNamespace(step=3 * self.begun_at, model=None)

    def make_learner(self, state):
        return types.SimpleNamespace(steps_a_batch=3)

    def open_log(self, start, learner):
        return mock.MagicMock()

    def evaluate(self, state, step):
        return {}

    def collect(self, state, step):
        self.done.append(step)
        return types.SimpleNamespace(metrics=dict), {}

    def update(self, learner, state, rollouts, step):
        return types.SimpleNamespace(step=state.step + 3, model=None), {}

    def save(self, state, *, unit=1, force=False):
        self.done.append((state.step, unit, force))

    def close(self):
        self.done.append("closed")


@pytest.mark.parametrize("begun_at", [0, 2])
def test_a_run_counts_its_steps_and_checkpoints_by_rollout_batches(begun_at):
    config = flags.load_file("configs/default.py")
    with config.unlocked():
        config.update(num_steps=4, eval_problems=0)
    run = Bare(config, begun_at)
    run.run()
    expected = []
    for step in range(begun_at, 4):
        expected += [step, (3 * (step + 1), 3, False)]
    assert run.done == [*expected, (12, 1, True), "closed"]

"""Scoring while others are sampled, and a batch collected during an update: what comes
of it is the same, and nothing is lost."""

import os
import pickle
import signal
import threading
import time

import jax.numpy as jnp
import pytest
from connected import teachers
from fakes import FakeStudent, collector, problem
from teacher_server import TeacherServer

from ovd_jax.cli import flags
from ovd_jax.cli.interrupt import SIGNALS
from ovd_jax.client.accounting import Accounting
from ovd_jax.errors import TeacherError
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.training import prefetch
from ovd_jax.training.prefetch import (
    DeviceLock,
    RolloutPrefetcher,
    read_batch,
    write_batch,
)
from ovd_jax.wiring.combinations import check_prefetch

PROBLEMS = tuple(problem(f"({i}+4)*2", str(2 * i + 8)) for i in range(1, 5))
SAMPLES = 2


def writes(prompt, sample, rng):
    """Some lines, the same ones now and then."""
    lines = [f"{rng.randrange(3)}+{rng.randrange(3)}" for _ in range(rng.randrange(4))]
    return "\n".join([*lines, f"#### {rng.randrange(9, 12)}"])


@pytest.fixture
def connect():
    """`connect(server, ...)`: a teacher, closed when the test ends."""
    with teachers(
        prompt="embedded",
        retries=3,
        max_concurrency=4,
        score_temperature=2.0,
        max_new_tokens=32,
    ) as make:
        yield make


def streamed(seen=lambda: None):
    """A student's `stream`, which ends the rows in an order of its own."""
    student = FakeStudent(writes)

    def stream(prompts, *, seed, samples):
        groups = student(prompts, seed=seed, samples=samples)
        rows = list(enumerate(c for group in groups for c in group))
        for row, completion in sorted(rows, key=lambda pair: pair[0] * 5 % len(rows)):
            seen()
            yield row, completion

    return stream


def collected(teacher, stream=None):
    made = collector(teacher, samples=SAMPLES, granularity="hybrid", threshold=4)
    return made.collect(PROBLEMS, FakeStudent(writes), seed=3, stream=stream)


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), ("logprobs",)])
@pytest.mark.parametrize("faults", [{}, {"500": 0.1, "reset": 0.1, "label": 0.1}])
def test_groups_are_the_same_whether_or_not_scoring_overlaps(without, faults, connect):
    with TeacherServer(without=without) as server:
        teacher = connect(server)
        server.faults = faults
        groups = collected(teacher)
        assert collected(teacher, streamed()) == groups
        assert bool(sum(server.failed.values())) == bool(faults)
    values = {r.verdict.value for group in groups for r in group.rollouts}
    assert len(values) > 2
    assert any(r.replaced is False for group in groups for r in group.rollouts)


def test_the_first_scores_are_there_before_the_last_row_is_sampled(connect):
    with TeacherServer() as server:
        teacher = connect(server)
        before = len(server.bodies)
        answered = threading.Event()
        rows = []

        def seen():
            rows.append(len(server.bodies) - before)
            if len(rows) == len(PROBLEMS) * SAMPLES:  # the last one waits for a score
                while len(server.bodies) == before and not answered.wait(0.01):
                    pass

        collected(teacher, streamed(seen))
        assert len(server.bodies) > before
    assert rows[0] == 0


def test_a_failure_while_sampling_ends_what_is_being_scored(connect):
    with TeacherServer(delay=0.05) as server:
        teacher = connect(server)

        def broken(prompts, *, seed, samples):
            yield next(streamed()(prompts, seed=seed, samples=samples))
            raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            collected(teacher, broken)
        assert collected(teacher, streamed()) == collected(teacher)


def test_a_teacher_that_fails_fails_the_batch(connect):
    with TeacherServer() as server:
        teacher = connect(server, on_failure="fail", retries=0)
        server.faults = {"500": 1.0}
        with pytest.raises(TeacherError, match="HTTP 500"):
            collected(teacher, streamed())


def test_what_runs_at_once_counts_once_as_the_teachers_time(monkeypatch):
    times = iter([0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    accounting = Accounting()
    for act in ("asked", "asked", "done", "asked", "done", "done"):
        getattr(accounting, act)()
    taken = accounting.take()
    assert (taken["seconds_teacher"], taken["seconds_teacher_waited"]) == (10.0, 0.0)
    times = iter([12.0, 12.0, 15.0, 15.0, 15.0])
    with accounting.waiting():
        pass
    taken = accounting.take()
    assert (taken["seconds_teacher"], taken["seconds_teacher_waited"]) == (3.0, 3.0)


def weights_sampler():
    return DeviceLock().sampler(lambda model: float(model["w"]))


def make_prefetcher(folder, *, batches=1, collect=None):
    """(prefetcher, sampler): a batch is the weights it was sampled from, and its
    step."""
    sampler = weights_sampler()

    def sample(model, step):
        return sampler(model), step

    collect = collect or sample
    return RolloutPrefetcher(collect, batches=batches, folder=folder), sampler


def run_steps(prefetcher, sampler, steps, weights=0.0, *, save=()):
    """Each step adds one to the weights: (batches, stalenesses)."""
    batches, stale = [], []
    model = {"w": jnp.float32(weights)}
    for step in steps:
        batch, metrics = prefetcher.next(model, step)
        if step + 1 < 6:
            prefetcher.start(model, step + 1, sampler)
        with sampler.lock:
            new = {"w": model["w"] + 1}
            model["w"].delete()  # as the update does that it is donated to
            model = new
        if step in save:
            prefetcher.save(step + 1)
        batches.append(batch)
        stale.append(metrics["staleness"])
    return batches, stale


def test_a_batch_ahead_is_sampled_from_the_weights_before_the_update(tmp_path):
    now = run_steps(*make_prefetcher(tmp_path, batches=0), range(6))
    assert now == ([(float(k), k) for k in range(6)], [0] * 6)
    batches, stale = run_steps(*make_prefetcher(tmp_path), range(6))
    assert batches == [(float(max(k - 1, 0)), k) for k in range(6)]
    assert stale == [0, 1, 1, 1, 1, 1]


def test_a_resumed_run_has_the_batch_that_was_ahead_of_its_checkpoint(tmp_path):
    """It is ended after step 4; the state of after step 2 is what was saved."""
    whole, _ = run_steps(*make_prefetcher(tmp_path), range(6), save=(2,))
    resumed = run_steps(*make_prefetcher(tmp_path), range(3, 6), 3.0)
    assert resumed == (whole[3:], [1, 1, 1])
    fresh = run_steps(*make_prefetcher(tmp_path / "elsewhere"), range(3, 6), 3.0)
    assert fresh == ([(3.0, 3), (3.0, 4), (4.0, 5)], [0, 1, 1])


@pytest.mark.parametrize("at", ["ahead", "taken", "begun", "collected late"])
def test_a_run_that_is_stopped_anywhere_goes_on_with_the_same_batches(at, tmp_path):
    """It is stopped in step 3, of which only the state before it is whole."""
    whole, _ = run_steps(*make_prefetcher(tmp_path / "whole"), range(6))
    late, sampler = threading.Event(), weights_sampler()

    def collect(model, step):
        batch = sampler(model), step
        if step == 3 and at == "collected late":
            late.wait(10)
        return batch

    prefetcher, _ = make_prefetcher(tmp_path, collect=collect)
    assert run_steps(prefetcher, sampler, range(3))[0] == whole[:3]
    model = {"w": jnp.float32(3.0)}
    if at == "collected late":
        threading.Timer(0.3, late.set).start()
    if at in ("taken", "begun"):
        prefetcher.next(model, 3)
    if at == "begun":
        prefetcher.start(model, 4, sampler)
    prefetcher.save(3, ending=True)
    resumed = run_steps(*make_prefetcher(tmp_path), range(3, 6), 3.0)
    assert resumed == (whole[3:], [1, 1, 1])


@pytest.mark.parametrize("how", ["ending", "interrupted", "failed"])
def test_a_program_that_ends_does_not_wait_for_a_batch_that_never_comes(
    how, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(prefetch, "_GRACE_S", 0.3)
    over, sampler = threading.Event(), weights_sampler()

    def collect(model, step):
        batch = sampler(model), step
        if step == 3:
            if how == "failed":
                raise TeacherError("it is away")
            over.wait(20)
        return batch

    prefetcher, _ = make_prefetcher(tmp_path, collect=collect)
    run_steps(prefetcher, sampler, range(3))
    begun = time.monotonic()
    with SIGNALS.caught(), SIGNALS.held():
        if how == "interrupted":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        prefetcher.save(3, ending=how != "interrupted")
        SIGNALS.noticed.set()  # else it is raised here
    assert time.monotonic() - begun < 2.0
    over.set()
    batches, _ = run_steps(*make_prefetcher(tmp_path), range(3, 6), 3.0)
    assert batches[0] == (3.0, 3)
    assert "collected anew from the weights of the checkpoint" in caplog.text


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES = {
    "missing": None,
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-1],
    "only its first line": lambda data: data.split(b"\n")[0],
    "zeros": lambda data: bytes(len(data)),
    "a bit of the batch": lambda data: changed(data, -3),
    "a bit of the first line": lambda data: changed(data, 5),
    "something behind it": lambda data: data + b"\0",
    "of another step": lambda data: data.replace(b'"step": 3', b'"step": 2'),
    "of another format": lambda data: data.replace(b'"format": 1', b'"format": 2'),
    "a deep first line": lambda data: b"[" * 100_000 + data,
    "no UTF-8": lambda data: b"\xff" + data,
    "a long number": lambda data: b"9" * 5000 + b"\n" + data,
    "a pickle": lambda data: pickle.dumps(Touch("ran")),
    "a folder": "mkdir",
}


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return open, (self.name, "w")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_batch_that_cannot_be_read_is_said_and_collected_anew(
    damage, tmp_path, caplog, monkeypatch
):
    """From the weights of the checkpoint, as a run that collects none ahead does."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ahead"
    run_steps(*make_prefetcher(folder), range(6), save=(2,))
    path = folder / "000000003.batch"
    data = path.read_bytes()
    path.unlink()
    if damage == "mkdir":
        path.mkdir()
    elif damage:
        path.write_bytes(damage(data))
    (folder / "000000003.pickle").write_bytes(pickle.dumps(Touch("ran")))
    resumed = run_steps(*make_prefetcher(folder), range(3, 6), 3.0)
    assert resumed == ([(3.0, 3), (3.0, 4), (4.0, 5)], [0, 1, 1])
    assert "for step 3 cannot be read" in caplog.text
    assert "collected anew from the weights of the checkpoint" in caplog.text
    assert not (tmp_path / "ran").exists()


def test_a_new_run_takes_no_batch_that_somebody_else_has_left(tmp_path, caplog):
    for step in (0, 1):
        write_batch(tmp_path / f"00000000{step}.batch", step, ("theirs", step))
    batches, _ = run_steps(*make_prefetcher(tmp_path), range(2))
    assert batches == [(0.0, 0), (0.0, 1)]
    assert not caplog.text


def test_a_collected_batch_comes_back_from_its_file_as_it_was(tmp_path, connect):
    with TeacherServer() as server:
        groups = tuple(collected(connect(server)))
    advantages = [[[0.1] * len(r.final.step_ends) for r in g.rollouts] for g in groups]
    batch = RolloutBuffer(groups, advantages, 10), {"seconds_sample": 0.25, "auc": None}
    write_batch(tmp_path / "batch", 7, batch)
    assert read_batch(tmp_path / "batch", 7) == batch
    with pytest.raises(ValueError, match="of another step"):
        read_batch(tmp_path / "batch", 8)


def test_files_of_old_batches_are_removed(tmp_path):
    run_steps(*make_prefetcher(tmp_path), range(6), save=range(6))
    assert [path.stem[-1] for path in sorted(tmp_path.iterdir())] == ["3", "4", "5"]


@pytest.mark.parametrize("sampled", [False, True])
def test_what_fails_ahead_fails_when_it_is_asked_for(sampled, tmp_path):
    def collect(model, step):
        if step == 1:
            assert threading.current_thread().daemon  # no run ends later for it
            if sampled:
                sampler(model)
            raise TeacherError("no answer")
        return step

    prefetcher, sampler = make_prefetcher(tmp_path, collect=collect)
    prefetcher.next({"w": jnp.zeros(())}, 0)
    prefetcher.start({"w": jnp.zeros(())}, 1, sampler)
    with pytest.raises(TeacherError, match="no answer"):
        prefetcher.next(None, 1)


def test_samplers_beside_each_other_take_turns_on_the_devices():
    """On several devices two programs at once may wait for each other for ever."""
    busy, most = [], []

    class Sampler:
        def stream(self, rows):
            for row in range(rows):
                busy.append(row)
                most.append(len(busy))
                time.sleep(0.005)
                busy.pop()
                yield row

        def __call__(self, rows):
            return list(self.stream(rows))

    lock = DeviceLock()
    training, evaluation = lock.sampler(Sampler()), lock.sampler(Sampler())
    calls = [training, training.stream, evaluation, evaluation.stream]
    threads = [
        threading.Thread(target=lambda call=call: list(call(5))) for call in calls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"async_batches": 2}, "async_batches is 2; use 0 or 1"),
        ({"async_batches": 1}, "set importance_cap"),
    ],
)
def test_what_cannot_be_collected_ahead_is_refused(knobs, message):
    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.update(knobs)
    with pytest.raises(ValueError, match=message):
        check_prefetch(config)

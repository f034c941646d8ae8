"""The table of layouts, sizes that a mesh divides, and processes of which there is one.

That meshes and processes give what one device gives is in integration/test_meshes.py.
"""

import json
import pickle
import re
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import FakeTeacher, problem, score_of
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from ovd_jax.cli.flags import line_of
from ovd_jax.client.endpoint import WrongModel
from ovd_jax.client.replies import Denied, Refused
from ovd_jax.errors import TeacherError, UserError
from ovd_jax.learning.update import TrainState, optimizer
from ovd_jax.models.known import KNOWN
from ovd_jax.models.sharding import (
    AXES,
    check_heads,
    fetch,
    mesh_sizes,
    row_shards,
    shardings,
)
from ovd_jax.models.transformer import Transformer
from ovd_jax.multihost import processes
from ovd_jax.multihost.shared import SharedTask, SharedTeacher, shared
from ovd_jax.rollout.pack import plan
from ovd_jax.search.base import SearchError
from ovd_jax.search.engine import Away
from ovd_jax.shapes import compact
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.teacher.base import Score, ScoreRequest

TX = optimizer(
    learning_rate=1e-2, schedule="constant", warmup_steps=0, total_steps=9,
    weight_decay=0.01, b1=0.9, b2=0.99, grad_clip=1e3,
)  # fmt: skip


def abstract_mesh(*sizes: int) -> AbstractMesh:
    return AbstractMesh(sizes, AXES, (AxisType.Auto,) * 3)


def abstract_state(config) -> TrainState:
    return jax.eval_shape(
        lambda: TrainState.create(Transformer(config, jax.random.key(0)), TX)
    )


def specs(config, *sizes: int) -> dict[str, P]:
    laid_out = shardings(abstract_state(config), abstract_mesh(*sizes))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): sharding.spec
        for path, sharding in jax.tree_util.tree_leaves_with_path(laid_out)
    }


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_covers_the_state_of_every_known_model(name):
    found = specs(KNOWN[name], 1, 1, 1)
    assert found["model/embed/embedding/value"] == P("tp", "fsdp")
    assert found["model/layers/gate/kernel/value"] == P(None, "fsdp", "tp")
    assert found["model/layers/down/kernel/value"] == P(None, "tp", "fsdp")
    assert found["model/norm/scale/value"] == found["step"] == P()
    for path, spec in found.items():
        for moment in re.findall(r"/(?:mu|nu)/(.+)", path):
            assert spec == found[f"model/{moment}"]


def test_a_parameter_without_a_rule_is_an_error():
    model = {"layers": {"router": {"gate_up": jnp.zeros((2, 3))}}}
    with pytest.raises(ValueError, match=r"matches 'layers/router/gate_up', shape \(2"):
        shardings(model, abstract_mesh(1, 1, 1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 3, 1), r"embedding/value of shape \(26, 16\): mesh axis fsdp=3 does not"),
        ((1, 1, 4), r"divide 26; set config.mesh.tp to a divisor"),
    ],
)
def test_an_axis_that_does_not_divide_a_weight_is_an_error(sizes, message, config):
    with pytest.raises(ValueError, match=message):
        specs(config, *sizes)


def test_no_key_value_head_is_cut_in_two(config):
    check_heads(config.num_kv_heads, abstract_mesh(4, 4, 2))
    with pytest.raises(ValueError, match="tp=4 does not divide the model's 2 key"):
        check_heads(config.num_kv_heads, abstract_mesh(1, 1, 4))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((1, -1, 1), (1, 8, 1)), ((-1, 2, 2), (2, 2, 2)), ((2, 1, 4), (2, 1, 4))],
)
def test_minus_one_is_the_rest_of_the_devices(sizes, expected):
    assert mesh_sizes(sizes, 8) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 4, 1), "data 1 x fsdp 4 x tp 1 does not come to the 8 devices"),
        ((-1, 3, 1), "data -1 x fsdp 3 x tp 1 does not come to the 8 devices"),
        ((-1, -1, 1), "one may be -1"),
        ((1, 0, -1), "at least 1"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_an_error(sizes, message):
    with pytest.raises(ValueError, match=message):
        mesh_sizes(sizes, 8)


def test_outside_of_a_mesh_there_is_one_shard(model):
    assert row_shards() == 1
    jax.tree.map(np.testing.assert_array_equal, fetch(model), jax.device_get(model))


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_every_device_is_given_as_many_packs(shards):
    _, shape = plan([8] * 5, 64, 200, 4000, 1, shards)
    assert shape.microbatch % shards == 0
    assert shape.microbatch // shards * shape.slots <= 4000
    assert plan([8] * 5, 64, 200, 4000, 1) == plan([8] * 5, 64, 200, 4000, 1, 1)


def test_packs_are_cut_smaller_where_devices_would_have_none():
    _, shape = plan([8], 64, 200, 10_000, 1, 1)
    assert shape.bins == 8
    _, shape = plan([8], 64, 200, 10_000, 1, 4)
    assert (shape.bins, shape.microbatch) == (2, 4)


def test_a_shrunken_grid_still_has_lines_for_every_device():
    open_PG = np.zeros((16, 2), bool)
    open_PG[[3, 9, 12], 0] = True
    for shards, height in ((1, 4), (4, 4), (6, 6), (8, 8)):
        cells_PG, alive_PG = compact(open_PG, 1, shards)
        assert cells_PG.shape == (height, 1)
        assert sorted(cells_PG[alive_PG]) == [6, 18, 24]
    cells_PG, _ = compact(open_PG, 1, 16)
    assert cells_PG.shape == (16, 1)


def test_one_process_asks_and_writes_itself():
    task, asked = ArithmeticTask(), [problem("3+4", "7")] * 2
    assert shared(SharedTask, task) is task
    assert SharedTask(task).step_stop == task.step_stop
    assert SharedTask(task).rewards(asked, ["#### 7", "8"]) == [1.0, 0.0]
    teacher = FakeTeacher()
    request = ScoreRequest("3+4", "", "#### 7", whole=True)
    assert SharedTeacher(teacher).score([request], seed=0) == [score_of(9)]
    assert processes.on_main(len, "abc") == 3
    processes.check_same("anything", object())


def test_what_others_than_the_main_process_do_is_nothing():
    with processes.NullObject() as run:
        assert run.log(0, {"loss": 1.0}) is None


@pytest.mark.parametrize(
    "asked",
    [
        dict(coordinator="here", processes=2, process=0),
        dict(coordinator="10.0.0.1:1234", processes=2, process=2),
        dict(coordinator="", processes=2, process=0),
    ],
)
def test_processes_that_cannot_find_each_other_are_an_error(asked):
    with pytest.raises(ValueError, match="give host:port"):
        processes.connect(**asked)


class Raises:
    """A method that fails with an error that no other process could be sent."""

    def __init__(self, error):
        self.error = error
        self.lock = threading.Lock()

    def __call__(self):
        raise self.error


class Own(ValueError):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (UserError("set it to 1"), UserError, "set it to 1"),
        (TeacherError("no answer"), TeacherError, "no answer"),
        (SearchError("no engine"), SearchError, "no engine"),
        (ValueError("half a pair \ud83d"), ValueError, "half a pair \ud83d"),
        (OSError(28, "No space left"), OSError, "No space left"),
        (OSError("no errno"), OSError, "no errno"),
        (OSError(13, "Denied", "/a"), PermissionError, "[Errno 13] Denied: '/a'"),
        (FileNotFoundError(2, "Not there", Path("/b")), FileNotFoundError, "'/b'"),
        (TimeoutError("at last"), OSError, "TimeoutError: at last"),
        (Denied("HTTP 401"), TeacherError, "HTTP 401"),
        (Refused("HTTP 400"), TeacherError, "HTTP 400"),
        (WrongModel("it serves b", lost=True), TeacherError, "it serves b"),
        (Away("no answer", retry_after=3), SearchError, "no answer"),
        (json.JSONDecodeError("no JSON", "{", 1), ValueError, "JSONDecodeError: no"),
        (ImportError("no wandb"), RuntimeError, "ImportError: no wandb"),
        (RecursionError("deep"), RuntimeError, "RecursionError: deep"),
        (Own(1, 2), ValueError, "Own: 1 and 2"),
    ],
)
def test_an_error_of_the_first_process_is_raised_on_all(error, kind, said):
    message = processes.outcome(Raises(error))
    with pytest.raises(kind, match=re.escape(said)) as caught:
        processes.result_of(message)
    assert type(caught.value) is kind
    assert line_of(caught.value) == line_of(error)


def test_what_cannot_be_sent_is_an_error_on_all_and_keeps_nobody_waiting():
    message = processes.outcome(threading.Lock)
    with pytest.raises(TypeError, match="lock is not among the records"):
        processes.result_of(message)


@pytest.mark.parametrize("result", [None, [1.0, None], (Score(7.0, (1.0,), 0.0), "a")])
def test_a_result_of_the_first_process_is_what_all_get(result):
    assert processes.result_of(processes.outcome(lambda: result)) == result


def test_a_message_runs_nothing():
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(ValueError, match="no record"):
        processes.result_of(pickle.dumps((None, Evil())))

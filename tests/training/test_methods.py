"""What each method collects and trains on; whole runs of all of them."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import (
    FakeStudent,
    FakeTeacher,
    collector,
    encode,
    group,
    kept,
    problem,
    swapped,
    trajectory,
)
from logprob_server import server

from ovd_jax import train
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.reporting.run_dir import read_metrics
from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.solutions import given_groups, teacher_groups
from ovd_jax.tasks.base import Problem
from ovd_jax.training.batches import collect, to_batch
from ovd_jax.training.methods import METHODS, accepted, method_of, preferences, rules

FORBIDDEN = FakeTeacher(score=lambda *_: pytest.fail("the teacher was asked"))
PROBLEMS = (problem("3+4", "7"), problem("2*3", "6"))
RIGHT = {"3+4": "#### 7", "2*3": "#### 6"}
UNJUDGED = {"granularity": "none", "samples": 2}


def load(method: str, **changes):
    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.method = method
        config.update(changes)
    return config


def buffer_of(*groups) -> RolloutBuffer:
    flat = [[[0.0] * len(r.final.step_ends) for r in g.rollouts] for g in groups]
    return RolloutBuffer(groups, flat, levels=10)


def test_every_method_has_a_config_of_its_name():
    for name in set(METHODS) - {"ovd"}:
        assert flags.load_file(f"configs/{name}.py").method == name
    assert flags.load_file("configs/quickstart.py").method == "ovd"


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="'sft' is not one of ovd, grpo, seq_kd, rej"):
        method_of(load("sft"))


def test_refills_are_refused_where_there_are_no_advantages():
    assert method_of(load("grpo", refills=2)).collect
    with pytest.raises(ValueError, match="refills 2 is for groups with advantages"):
        method_of(load("seq_kd", refills=2))


class Served:
    """A token-level teacher that is not a model in this process."""

    def read(self, rows):
        """-1 for the token itself; the likeliest ones are tokens 0, 1, 2, ..."""
        return [
            [dict.fromkeys(range(20), -3.0) | {token: -1.0} for token in tokens]
            for _, tokens in rows
        ]


@pytest.mark.parametrize(
    ("divergence", "temperature", "distill", "said"),
    [
        ("policy_gradient", 0.6, 1.0, "temperature is 0.6, but a served teacher"),
        ("policy_gradient", 1.5, 1.0, "temperature is 1.5, but a served teacher"),
        ("policy_gradient", 1.0, 2.0, "distill.temperature is 2.0, but policy_gr"),
        ("forward_kl", 0.6, 2.0, "distill.temperature to 1"),
        ("policy_gradient", 1.0, 1.0, None),
        ("forward_kl", 0.6, 1.0, None),
        ("jsd", 1.5, 1.0, None),
    ],
)
def test_a_served_teachers_probabilities_are_compared_at_its_temperature(
    divergence, temperature, distill, said
):
    config = load("on_policy_kd", temperature=temperature, kl_coef=0.0)
    config.distill.update(
        divergence=divergence, temperature=distill, vocabulary="top_k"
    )
    make = functools.partial(METHODS["on_policy_kd"].objective, config, None, Served())
    if said is None:
        assert make().temperature == 1.0
        return
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize(
    ("divergence", "shown"),
    [("policy_gradient", 0), ("forward_kl", 4), ("reverse_kl", 4), ("jsd", 4)],
)
def test_a_divergence_alone_takes_a_served_teachers_likeliest_tokens(divergence, shown):
    config = load("on_policy_kd")
    config.distill.update(divergence=divergence, top_k=4)
    batch, _ = to_batch(config, buffer_of(group(kept(trajectory(3), 1.0))), Served())
    is_token_BY = batch.segments_BY > 0
    np.testing.assert_array_equal(batch.teacher_logprobs_BY[is_token_BY], -1.0)
    if shown:
        assert batch.teacher_top.ids.shape == (*batch.tokens_BY.shape, shown)
    else:
        assert batch.teacher_top is None


@pytest.mark.parametrize(
    ("method", "changes", "asks"),
    [
        ("ovd", {}, True),
        ("grpo", {}, False),
        ("seq_kd", {}, True),
        ("seq_kd", {"distill": {"solutions": "data"}}, False),
        ("rejection_ft", {}, True),
        ("rejection_ft", {"threshold": 0}, False),
        ("token_kd", {"distill": {"solutions": "data"}}, False),
        ("on_policy_kd", {}, False),
        ("dpo_pairs", {}, True),
    ],
)
def test_who_asks_the_teacher_for_text(method, changes, asks):
    config = load(method, **changes)
    assert method_of(config).needs_text_teacher(config) is asks
    assert (rules(config).granularity == "none") is (
        not asks or method in ("seq_kd", "token_kd")
    )


def test_samples_that_nobody_judges_are_kept_as_they_are():
    student = FakeStudent(lambda text, sample, rng: RIGHT["3+4"] if sample else "8")
    first, second = collector(FORBIDDEN, **UNJUDGED).collect(
        PROBLEMS[:1] * 2, student, seed=0
    )
    for group_ in (first, second):
        assert [r.reward_after for r in group_.rollouts] == [0.0, 1.0]
        assert [r.verdict for r in group_.rollouts] == [None, None]
        assert all(r.final is r.student for r in group_.rollouts)


def write(request, rng) -> str:
    """Right at the second try, and at once for the second problem."""
    right = request.attempt or request.question != "3+4"
    return RIGHT[request.question] if right else "#### 5"


def test_the_teachers_solutions_are_tried_until_they_are_right():
    teacher = FakeTeacher(demonstrate=write)
    groups = teacher_groups(collector(teacher, **UNJUDGED), PROBLEMS, None, seed=0)
    texts = [[r.final.text for r in g.rollouts] for g in groups]
    assert texts == [["#### 7"] * 2, ["#### 6"] * 2]
    assert [len(requests) for requests in teacher.demonstrated] == [4, 2]
    assert not teacher.scored
    for rollout in groups[0].rollouts:
        assert rollout.final.tokens[:-1] == encode("#### 7")
        assert all(rollout.final.from_teacher)
        assert not rollout.sampled


def test_wrong_solutions_are_left_out_unless_they_may_be_wrong():
    teacher = FakeTeacher(demonstrate=write)
    options = UNJUDGED | {"demonstration_tries": 1}
    groups = teacher_groups(collector(teacher, **options), PROBLEMS, None, seed=0)
    assert [len(g.rollouts) for g in groups] == [0, 2]
    groups = teacher_groups(
        collector(teacher, **options, only_correct=False), PROBLEMS, None, seed=0
    )
    assert [r.final.text for r in groups[0].rollouts] == ["#### 5"] * 2


def test_solutions_of_the_data_are_taken_once_and_checked():
    rows = [
        Problem("a", "3+4", "7", "hand", solution="#### 7"),
        Problem("b", "2*3", "6", "hand", solution="#### 5"),
    ]
    groups = given_groups(collector(FORBIDDEN, **UNJUDGED), rows, None, seed=0)
    assert [[r.final.text for r in g.rollouts] for g in groups] == [["#### 7"], []]
    with pytest.raises(ValueError, match="Problem '3\\+4' has no solution in the data"):
        given_groups(collector(FORBIDDEN, **UNJUDGED), PROBLEMS, None, seed=0)


MIXED = group(
    kept(trajectory(2, 3), 1.0),
    kept(trajectory(4), 0.0),
    kept(trajectory(1), 1.0, accepted=False),
    swapped(trajectory(5), trajectory(2, 2, teacher=(0, 1))),
)


def test_fine_tuning_takes_what_was_accepted_and_is_right():
    buffer = buffer_of(MIXED, group(kept(trajectory(1), 0.0)))
    (first, second), advantages = accepted(buffer)
    assert first.rollouts == MIXED.rollouts[:1]
    assert second.rollouts == ()
    assert advantages == [[[1.0, 1.0]], []]


@pytest.mark.parametrize("replacement", ["trajectory", "suffix", "step"])
def test_what_fine_tuning_rejects_is_judged_but_not_replaced(replacement):
    """The teacher has no demonstration to give, and is asked for none."""
    options = vars(rules(load("rejection_ft", replacement=replacement)))
    teacher = FakeTeacher(demonstrate=lambda *_: pytest.fail("a demonstration"))
    student = FakeStudent(lambda text, sample, rng: RIGHT["3+4"] if sample else "8")
    ours = collector(teacher, **options | {"samples": 2, "max_new_tokens": 40})
    (group_,) = ours.collect(PROBLEMS[:1], student, seed=0)
    assert len(teacher.scored) == 1
    assert [r.accepted for r in group_.rollouts] == [False, True]
    assert all(r.final is r.student for r in group_.rollouts)


def test_pairs_are_of_the_teachers_trajectory_and_the_students():
    (pair,), advantages = preferences(buffer_of(MIXED))
    replaced = MIXED.rollouts[3]
    assert [r.final for r in pair.rollouts] == [replaced.final, replaced.student]
    assert advantages == [[[1.0, 1.0], [-1.0]]]
    assert pair.prompt_tokens == MIXED.prompt_tokens


@pytest.mark.parametrize("method", ["dpo_pairs", "rejection_ft"])
def test_a_batch_with_nothing_to_train_on_weighs_nothing(method):
    nothing = buffer_of(group(kept(trajectory(3), 0.0)))
    batch, shape = to_batch(load(method, minibatches=2), nothing)
    assert len(batch.tokens_BY) == 2
    assert not batch.weights_BY.any()
    assert shape.microbatch == 1


def test_both_of_a_pair_are_in_one_pack_however_long_they_are():
    pairs = [
        group(swapped(trajectory(n), trajectory(m, teacher=(0,))))
        for n, m in ((30, 20), (3, 4), (31, 1))
    ]
    config = load("dpo_pairs", minibatches=1, length_multiple=1, microbatch_tokens=70)
    batch, _ = to_batch(config, buffer_of(*pairs), pairs=True)
    for advantages_Y in batch.advantages_BY:
        assert {-1.0, 1.0} <= set(advantages_Y.tolist())
    short = load("dpo_pairs", minibatches=1, length_multiple=1, microbatch_tokens=40)
    with pytest.raises(
        ValueError, match=r"2 times the longest completion take 2 \+ 62"
    ):
        to_batch(short, buffer_of(*pairs), pairs=True)


def collected(**changes):
    """A step's rollouts of a student that is right on even sums, and on others half the
    time."""

    def answer(text, sample, rng):
        value = eval(text.strip().removesuffix("="))
        return f"#### {value if value % 2 == 0 or sample else value + 1}"

    student = FakeStudent(answer)
    options = dict(problems_per_step=6, samples=2, minibatches=1, threshold=0)
    config = load("grpo", **options | changes)
    ours = collector(FORBIDDEN, **UNJUDGED)
    ours.teacher = None
    buffer, _ = collect(config, ours, lambda _, *a, **k: student(*a, **k), None, 3)
    return buffer


def test_groups_without_spread_are_drawn_anew_and_left_out():
    plain = collected().metrics()
    assert 0 < plain["zero_spread_share"] < 1
    assert (plain["skipped_groups"], plain["student_samples"]) == (0, 12)
    buffer = collected(refills=20)
    metrics = buffer.metrics()
    assert len(buffer.groups) == 6
    assert metrics["student_samples"] == 2 * (6 + metrics["skipped_groups"]) > 12
    for values in buffer.advantages:
        np.testing.assert_allclose(values, [[-0.707106], [0.707106]], atol=1e-5)
    asked = [g.problem.id for g in (*buffer.groups, *buffer.skipped)]
    assert len(set(asked)) == len(asked)
    again = collected(refills=20)
    assert again.groups == buffer.groups


def test_refills_are_bounded_and_leave_something_for_every_minibatch():
    metrics = collected(refills=1).metrics()
    assert 12 < metrics["student_samples"] <= 24
    student_right = collected(refills=1, minibatches=6)
    assert len(student_right.groups) == 6


KNOBS = dict(
    num_steps=4, problems_per_step=8, samples=2, minibatches=2, epochs=1, loggers=(),
    eval_problems=4, eval_every=0, checkpoint_every=1, max_new_tokens=32,
)  # fmt: skip


def run(folder: Path, config, **changes) -> list[dict]:
    with config.unlocked():
        config.update(KNOBS | changes)
        config.run_dir = str(folder)
        config.optimizer.schedule = "constant"
    train.main(config)
    return read_metrics(folder)


def weights(folder: Path) -> bytes:
    return (folder / "export" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "grpo:dapo", "grpo:gspo", *sorted(METHODS)])
def test_every_method_trains_and_goes_on_from_its_checkpoint(name, tmp_path):
    """Two steps and two more are, bit for bit, four. Without a teacher there is none to
    be found."""
    if name == "ovd":
        make = functools.partial(load, "ovd")
    else:
        file, _, variant = name.partition(":")
        path = f"configs/{file}.py" + (f":{variant}" if variant else "")
        make = functools.partial(flags.load_file, path)
    changes = {}
    if name.startswith(("grpo", "rejection_ft")):
        changes = {"teacher": {"model": "nobody/nowhere"}}
    rows = run(tmp_path / "whole", make(), **changes)
    assert all(np.isfinite(row["loss"]) for row in rows[:-1])
    assert any(row["grad_norm"] > 1e-3 for row in rows[:-1])
    run(tmp_path / "cut", make(), **changes | {"num_steps": 2})
    again = run(tmp_path / "cut", make(), **changes)
    assert [row["step"] for row in again][-3:] == [2, 3, 4]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["policy_gradient", "forward_kl"])
def test_on_policy_kd_learns_from_a_served_teachers_probabilities(divergence, tmp_path):
    """Its batches are several chunks long."""
    distill = {"divergence": divergence, "vocabulary": "top_k", "top_k": 3}
    changes = dict(chunk=64, num_steps=2, distill=distill, length_multiple=32)
    with server() as url:
        changes |= {"teacher": {"url": url}}
        rows = run(tmp_path, flags.load_file("configs/on_policy_kd.py"), **changes)
    assert all(np.isfinite(row["loss"]) for row in rows[:-1])
    assert all(row["grad_norm"] > 1e-4 for row in rows[:-1])
    assert rows[1]["token_teacher_requests"] == rows[1]["trajectories"]


@pytest.mark.slow
def test_a_refreshed_reference_is_where_the_run_left_off(tmp_path):
    """Refreshed after three steps; the run is cut after four, and again after one."""
    options = dict(reference_every=3, kl_coef=0.5, num_steps=5)
    make = functools.partial(flags.load_file, "configs/grpo.py")
    rows = run(tmp_path / "whole", make(), **options)
    kls = [row["kl"] for row in rows[:-1]]
    assert kls[3] < kls[2]
    for steps in (1, 4, 5):
        run(tmp_path / "cut", make(), **options | {"num_steps": steps})
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    with pytest.raises(ValueError, match="reference_every 3, but nothing refers to it"):
        run(tmp_path / "none", make(), **options | {"kl_coef": 0.0})


@pytest.mark.slow
def test_a_run_may_go_without_evaluation(tmp_path, capsys):
    config = flags.load_file("configs/grpo.py")
    rows = run(tmp_path / "run", config, num_steps=1, eval_problems=0)
    assert [row["step"] for row in rows] == [0]
    assert not any(name.startswith("eval_") for name in rows[0])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["accuracy_before"] is summary["accuracy_after"] is None

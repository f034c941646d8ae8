"""What is logged and written of four rollouts, counted by hand.

| rollout | student | score | outside | final | |
| 0, 0 | 2 + 3 tokens, right | 7 | 0, 0 | itself | accepted |
| 0, 1 | 4 tokens, cut | 2 | 0.2 | 3 of the teacher's, right | 1 failure |
| 1, 0 | 2 + 2 tokens | 2.5 | 0.1, 0.1, 0.3 | itself | 3 failures |
| 1, 1 | 2 + 4 tokens, half right | 0 | 0 | 2 + 2 of the teacher's, right | |
"""

import dataclasses
import json
import math

import pytest
from fakes import group, kept, score_of, swapped, trajectory, verdict

from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.trajectory import Verdict

DOUBTED = Verdict(
    (score_of(2, outside=0.1), score_of(3, outside=0.1)),
    score_of(4, outside=0.3),
    2.5,
)
FIRST = group(
    kept(trajectory(2, 3), 1.0, verdict(9, 7, value=7.0)),
    swapped(
        trajectory(4, stopped=False),
        trajectory(1, 1, 1, teacher=(0, 1, 2)),
        verdict=Verdict((), score_of(2, outside=0.2), 2.0),
        failed_demonstrations=1,
        revised=True,
    ),
)
SECOND = group(
    kept(trajectory(2, 2), 0.0, DOUBTED, accepted=False, failed_demonstrations=3),
    swapped(
        trajectory(2, 4),
        trajectory(2, 2, teacher=(1,)),
        before=0.5,
        verdict=verdict(0, value=0.0),
        final_verdict=verdict(9, 8, whole=9, value=8.0),
    ),
)
ADVANTAGES = [[[0.5, 1 / 3], [-0.5] * 3], [[0.0, 0.0], [0.0, 1e-9]]]
UNJUDGED = dataclasses.replace(SECOND, dropped=(trajectory(9), trajectory(8, 7)))
BUFFER = RolloutBuffer((FIRST, UNJUDGED), ADVANTAGES, levels=10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reward_before", (1 + 0 + 0 + 0.5) / 4),
        ("reward_after", (1 + 1 + 0 + 1) / 4),
        ("accuracy", 1 / 4),  # half right is not right
        ("acceptance_rate", 1 / 4),
        ("accepted_right", 1.0),  # the one that is accepted
        ("right_accepted", 1.0),
        ("replaced_share", 2 / 4),
        ("teacher_share", (3 + 2) / (5 + 3 + 4 + 4)),
        ("failed_demonstrations", 1 + 3),
        ("revised_share", 1 / 4),
        ("score_mean", (7 + 2 + 2.5 + 0) / 4),
        ("score_histogram", [1, 0, 2, 0, 0, 0, 0, 1, 0, 0]),
        ("score_entropy", math.log(4) - 0.5 * math.log(2)),  # 1, 2 and 1 of 4
        ("score_auc", 1.0),  # 7 over 2, 2.5 and 0
        ("dropped", 2),
        ("score_outside_mass", (0 + 0 + 0.2 + 0.1 + 0.1 + 0.3 + 0) / 7),
        ("zero_spread_share", 1 / 2),
        ("completion_tokens", (5 + 4 + 4 + 6) / 4),
        ("truncated_share", 1 / 4),
        ("trained_tokens", 5 + 3 + 4 + 4),
        ("trajectories", 4),
        ("student_samples", 4),
        ("skipped_groups", 0),
    ],
)
def test_metrics_are_counted_over_trajectories(name, expected):
    assert BUFFER.metrics()[name] == pytest.approx(expected)


def test_the_metrics_are_all_tested_above_and_plain_json():
    tested = test_metrics_are_counted_over_trajectories.pytestmark[0].args[1]
    metrics = BUFFER.metrics()
    assert set(metrics) == {name for name, _ in tested}
    assert json.loads(json.dumps(metrics)) == metrics


def test_precision_and_recall_of_acceptance_need_something_to_count():
    wrong = group(kept(trajectory(1), 0.0, verdict(9, value=9.0)))
    metrics = RolloutBuffer((wrong,), [[[0.0]]], levels=10).metrics()
    assert (metrics["accepted_right"], metrics["right_accepted"]) == (0.0, None)
    rejected = kept(trajectory(1), 1.0, verdict(2, value=2.0), accepted=False)
    metrics = RolloutBuffer((group(rejected),), [[[0.0]]], levels=10).metrics()
    assert (metrics["accepted_right"], metrics["right_accepted"]) == (None, 0.0)


def test_the_best_score_has_its_place_in_the_histogram():
    best = group(kept(trajectory(1), 1.0, verdict(9, value=9.0)))
    assert RolloutBuffer((best,), [[[0.0]]], levels=10).score_histogram()[9] == 1


def test_one_step_that_teaches_makes_a_group_count():
    advantages = [ADVANTAGES[0], [[0.0, 0.0], [0.0, -1e-3]]]
    buffer = RolloutBuffer((FIRST, SECOND), advantages, levels=10)
    assert buffer.metrics()["zero_spread_share"] == 0.0


def test_rows_are_json_and_come_in_order():
    rows = list(BUFFER.rows())
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["sample"] for row in rows[:4]] == [0, 1, 0, 1]
    assert [row["score"] for row in rows[:4]] == [7.0, 2.0, 2.5, 0.0]


def test_rows_of_dropped_trajectories_follow_those_of_their_group():
    *_, first, second = BUFFER.rows()
    assert first.pop("student")["tokens"] == 9
    assert second.pop("student")["tokens"] == 15
    named = {"problem_id": "3+4", "question": "3+4", "answer": "7", "dropped": True}
    assert first == second == named


def test_a_row_holds_the_problem_the_judgement_and_both_trajectories():
    row = list(BUFFER.rows())[3]
    student, final = row.pop("student"), row.pop("final")
    assert row == {
        "problem_id": "3+4",
        "question": "3+4",
        "answer": "7",
        "sample": 1,
        "accepted": False,
        "replaced": True,
        "score": 0.0,
        "reward_before": 0.5,
        "reward_after": 1.0,
        "failed_demonstrations": 0,
        "feedback": "",
        "revised": False,
        "advantages": [0.0, 0.0],
    }
    assert student["steps"] == ["step 0\n", "step 1\n"]
    assert (student["tokens"], student["stopped"]) == (6, True)
    assert student["teacher_share"] == [0.0, 0.0]
    assert [score["value"] for score in student["step_scores"]] == [0.0]
    assert student["score"] is None
    assert final["tokens"] == 4
    assert final["teacher_share"] == [0.0, 1.0]
    assert [score["value"] for score in final["step_scores"]] == [9.0, 8.0]
    assert final["score"]["value"] == 9.0


def test_a_row_of_an_unreplaced_rollout_has_no_second_trajectory():
    first, second, third, *_ = BUFFER.rows()
    assert first["final"] is None
    assert third["final"] is None
    assert first["advantages"] == [0.5, 0.333333]
    assert second["student"]["stopped"] is False
    assert second["final"]["step_scores"] == []  # nobody judged it
    assert second["final"]["score"] is None


def test_a_row_holds_the_distributions_of_scores():
    whole = list(BUFFER.rows())[2]["student"]["score"]
    probs = [float(level == 4) for level in range(10)]
    assert whole == {"value": 4.0, "probs": probs, "outside": 0.3}


def test_a_step_without_tokens_can_be_written():
    empty = trajectory(2, 0, 1, teacher=(2,))
    buffer = RolloutBuffer((group(kept(empty, 1.0)),), [[[0.0] * 3]], levels=10)
    (row,) = buffer.rows()
    assert row["student"]["teacher_share"] == [0.0, 0.0, 1.0]


def test_what_was_skipped_counts_as_sampled_and_flat_but_not_as_trained():
    skipped = group(kept(trajectory(2), 1.0, verdict(9, value=9.0)))
    metrics = dataclasses.replace(BUFFER, skipped=(skipped,)).metrics()
    assert metrics["accuracy"] == 2 / 5
    assert metrics["zero_spread_share"] == 2 / 3
    assert (metrics["skipped_groups"], metrics["student_samples"]) == (1, 5)
    assert metrics["trajectories"] == 4


def test_what_nobody_judged_or_sampled_has_no_metrics():
    """A group that no teacher was asked about, then a teacher's solution."""
    unasked = group(kept(trajectory(2, 3), 1.0, verdict=None, final_verdict=None))
    metrics = RolloutBuffer((unasked,), [[[0.0] * 2]], levels=0).metrics()
    assert metrics["accuracy"] == 1.0
    assert not any(name.startswith("score") for name in metrics)
    assert "acceptance_rate" not in metrics
    theirs = trajectory(2, teacher=(0,))
    solution = group(kept(theirs, 1.0, verdict=None, final_verdict=None))
    buffer = RolloutBuffer((solution,), [[[0.0]]], levels=10)
    metrics = buffer.metrics()
    assert "accuracy" not in metrics
    assert (metrics["student_samples"], metrics["trajectories"]) == (0, 1)
    assert metrics["teacher_share"] == 1.0
    (row,) = buffer.rows()
    assert (row["score"], row["final"]) == (None, None)

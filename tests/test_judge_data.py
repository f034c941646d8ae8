"""Rows that teach the embedded judge: what a student samples, scored exactly."""

import pytest

from ovd_jax import make_judge_data
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_jsonl
from ovd_jax.tasks.arithmetic import is_held_out
from ovd_jax.toy.arithmetic_examples import read_judged
from ovd_jax.toy.graded import is_right
from ovd_jax.toy.world import World
from ovd_jax.toy.world_examples import read_conversations
from ovd_jax.toy.world_turns import graded_turns
from ovd_jax.wiring.task import make_task


def small(**changes):
    config = flags.load_file("configs/judge_data.py").copy_and_resolve_references()
    config.update(dict(problems=8, slips=4, continuations=2) | changes)
    return config


@pytest.mark.slow
def test_rows_are_training_problems_with_a_score_of_each_line(tmp_path):
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        make_judge_data.main(small(output=path))
    first, second = (list(row for _, row in read_jsonl(path)) for path in paths)
    assert first == second  # a function of the seed
    assert len(read_judged(paths[0], make_task(small()))) == len(first) > 12
    for row in first:
        assert not is_held_out(row["question"])
        before = row["question"]
        for line, score in zip(row["lines"], row["scores"], strict=True):
            assert (score >= 5) == is_right(before, line)
            before = line


@pytest.mark.slow
def test_rows_of_conversations_are_training_questions_with_a_score_of_each_turn(
    tmp_path,
):
    path = str(tmp_path / "rows")
    config = flags.load_file(
        "configs/world_judge_data.py"
    ).copy_and_resolve_references()
    config.update(dict(problems=6, samples=2, output=path))
    make_judge_data.main(config)
    rows = [row for _, row in read_jsonl(path)]
    assert len(read_conversations(path)) == len(rows) > 4
    training = {q.text for hops in (1, 2) for q in World().questions("train", hops)}
    for row in rows:
        assert row["question"] in training
        assert [bool(x) for x in row["readings"][:-1]] == [True] * (
            len(row["turns"]) - 1
        )
        assert row["scores"] == graded_turns(
            World().asked(row["question"]), row["turns"], row["readings"]
        )


def test_a_task_without_an_exact_judge_is_refused(tmp_path):
    with pytest.raises(UserError, match="task 'math' has no exact judge"):
        make_judge_data.main(small(task="math", output=str(tmp_path / "rows")))

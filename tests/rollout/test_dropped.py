"""A trajectory that nobody judged is left out of its group, exactly."""

import dataclasses

import numpy as np
import pytest
from fakes import EOS, FakeStudent, FakeTeacher, collector, encode, problem, verdict

from ovd_jax.rollout.buffer import RolloutBuffer
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.rollout.pack import pack
from ovd_jax.rollout.trajectory import UNANSWERED

PROBLEM = problem("(7*2)-5", "9")
RIGHT, WRONG, LOST = "(7*2)-5\n14-5\n#### 9", "#### 8", "#### 09"


def write(prompt, sample, rng):
    return (RIGHT, WRONG, LOST)[sample]


def unless_lost(request, rng):
    """No score for the third sample, the best one for the others."""
    return None if request.text == LOST else 9


def collect(score=unless_lost, samples=3, **changes):
    teacher = FakeTeacher(score, demonstrate=lambda request, rng: RIGHT)
    collected = collector(teacher, samples=samples, **changes)
    (group,) = collected.collect([PROBLEM], FakeStudent(write), seed=0)
    return group, teacher


def advantages(group, **changes):
    fields = {
        "credit": "trajectory", "credit_weight": 0.5, "levels": 10, "baseline": "after",
        "scale_by_std": True,
    }  # fmt: skip
    return group_advantages(group, **fields | changes)


def test_the_statistics_of_a_group_are_those_of_the_ones_that_were_judged():
    """Rewards 1, 0 and the lost 1: the mean is 1/2, not 2/3, the standard deviation
    sqrt(1/2), not sqrt(1/3)."""
    group, _ = collect()
    first, second = advantages(group)
    np.testing.assert_allclose(first, [0.5 / 0.5**0.5] * 3, rtol=1e-5)
    np.testing.assert_allclose(second, [-0.5 / 0.5**0.5], rtol=1e-5)


@pytest.mark.parametrize("granularity", ["trajectory", "step", "hybrid"])
@pytest.mark.parametrize("baseline", ["after", "before", "union"])
def test_a_group_is_as_if_the_dropped_had_not_been_sampled(granularity, baseline):
    three, _ = collect(granularity=granularity)
    two, _ = collect(granularity=granularity, samples=2)
    assert dataclasses.replace(three, dropped=()) == two
    assert [t.text for t in three.dropped] == [LOST]
    options = {"length_multiple": 16, "max_tokens": 256}
    packed = [
        pack([g], [advantages(g, baseline=baseline)], **options)[0]
        for g in (three, two)
    ]
    for name in ("tokens_BY", "segments_BY", "weights_BY", "advantages_BY"):
        np.testing.assert_array_equal(*(getattr(batch, name) for batch in packed))


def test_a_dropped_trajectory_asks_for_no_demonstration():
    # Everyone else is replaced; credit by steps needs scores all the same.
    _, teacher = collect(threshold=10, credit="step")
    (asked,) = teacher.demonstrated
    assert len(asked) == 2


@pytest.mark.parametrize("replacement", ["trajectory", "suffix", "step"])
def test_one_whose_replacement_cannot_be_judged_is_dropped_too(replacement):
    """The student's wrong answer gets a 0, the teacher's RIGHT no score at all."""

    def score(request, rng):
        return 0 if request.text == WRONG else None

    def always_wrong(prompt, sample, rng):
        return WRONG if prompt.endswith("=\n") else "14-5\n#### 9"

    teacher = FakeTeacher(score, demonstrate=lambda request, rng: RIGHT)
    collected = collector(
        teacher, samples=2, replacement=replacement, credit="hybrid"
    )  # credit by steps needs the replacement's scores
    (group,) = collected.collect([PROBLEM], FakeStudent(always_wrong), seed=0)
    assert group.rollouts == ()
    assert [t.tokens for t in group.dropped] == [(*encode(WRONG), EOS)] * 2


def test_a_group_without_anyone_left_has_no_part_in_the_batch():
    empty, _ = collect(lambda request, rng: None)
    full, _ = collect()
    assert (empty.rollouts, len(empty.dropped)) == ((), 3)
    assert advantages(empty) == []
    options = {"length_multiple": 16, "max_tokens": 256}
    both, _ = pack([empty, full], [[], advantages(full)], **options)
    alone, _ = pack([full], [advantages(full)], **options)
    np.testing.assert_array_equal(both.tokens_BY, alone.tokens_BY)
    buffer = RolloutBuffer((empty, full), [[], advantages(full)], levels=10)
    assert buffer.metrics()["dropped"] == 4
    assert len(list(buffer.rows())) == 6


def test_who_is_accepted_softly_does_not_depend_on_who_was_dropped():
    soft = collector(FakeTeacher(), rejection="soft")
    verdicts = [verdict(7, value=7.0)] * 50  # each is kept with probability exp(-1)
    calm = soft.judge.accepts(verdicts, [0.0] * 50, seed=1)
    verdicts[7] = UNANSWERED
    with_one_lost = soft.judge.accepts(verdicts, [0.0] * 50, seed=1)
    assert with_one_lost == [*calm[:7], True, *calm[8:]]
    assert 5 < sum(calm) < 45

"""Every item is solved, graded and counted once, whatever was kept from before."""

import json
import math
import random
import statistics

import numpy as np
import pytest
from fakes import EOS, TOKENIZER, encode, problem, write_rows
from ml_collections import ConfigDict

from ovd_jax.client.cache import DiskCache
from ovd_jax.evaluation.attempts import (
    Ask,
    Attempt,
    Direct,
    Evaluated,
    evaluate,
    make_asks,
)
from ovd_jax.evaluation.measures import accuracy, interval, mean_interval, pass_at
from ovd_jax.evaluation.report import report
from ovd_jax.sampling.completion import Completion
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.base import Grade
from ovd_jax.tasks.math import MathTask
from ovd_jax.wiring.task import eval_sets

TASK = ArithmeticTask()
PROBLEMS = [problem(f"{n}+1", str(n + 1)) for n in range(7)]


class Stream:
    """A `stream` that answers with what the draw says, last row first, and can be
    killed after so many rows."""

    def __init__(self, last: int = 10**9):
        self.asked: list[tuple[str, int]] = []  # text of the prompt, draw
        self.batches: list[int] = []
        self.last = last

    def __call__(self, prompts, *, seed, samples=1, limits=None, draws=None):
        self.batches.append(len(prompts))
        for row in reversed(range(len(prompts) * samples)):
            if len(self.asked) == self.last:
                raise KeyboardInterrupt
            prompt, drawn = (
                prompts[row // samples],
                draws[row // samples][row % samples],
            )
            text = TOKENIZER.decode(prompt)
            self.asked.append((text, drawn))
            answer = eval(text.strip("=\n")) + (drawn % 2 if drawn else 0)
            yield row, Completion((*encode(f"#### {answer}"), EOS), (), True)


def direct(stream, *, greedy=False, rows=3, name="student"):
    return Direct(
        stream, tokenizer=TOKENIZER, rows=rows, identity={"model": name}, greedy=greedy
    )


def run(problems=PROBLEMS, *, stream=None, samples=1, seed=0, cache=None, **options):
    solver = direct(stream or Stream(), **options)
    return evaluate(
        problems, task=TASK, solver=solver, tokenizer=TOKENIZER, samples=samples,
        seed=seed, cache=cache,
    )  # fmt: skip


def test_all_are_counted_in_order_though_batches_are_uneven():
    stream = Stream()
    results = run(stream=stream, greedy=True)
    assert [r.problem for r in results] == PROBLEMS
    assert accuracy(results) == 1.0
    assert stream.batches == [3, 3, 1]  # the last one is not dropped


def test_equal_problems_are_counted_each_but_solved_once_if_greedy():
    twice = [PROBLEMS[0], PROBLEMS[1], PROBLEMS[0]]
    stream = Stream()
    assert len(run(twice, stream=stream, greedy=True)) == 3
    assert len(stream.asked) == 2
    stream = Stream()
    results = run(twice, stream=stream, samples=4)
    assert len(stream.asked) == len(set(stream.asked)) == 12
    assert [len(r.attempts) for r in results] == [4, 4, 4]
    assert results[0].attempts != results[2].attempts


def test_a_draw_depends_on_the_problem_and_its_sample_alone():
    def draws(problems, **options):
        stream = Stream()
        run(problems, stream=stream, **options)
        return set(stream.asked)

    few, more = draws(PROBLEMS[:2], samples=2), draws(PROBLEMS, samples=5, rows=2)
    assert few < more
    renamed = [problem(p.question, p.answer) for p in reversed(PROBLEMS)]
    assert draws(renamed, samples=5) == more
    assert not draws(PROBLEMS, samples=5, seed=1) & more


def test_a_second_run_asks_for_nothing(tmp_path):
    cache, stream = DiskCache(tmp_path), Stream()
    first = run(stream=stream, samples=3, cache=cache)
    again = Stream()
    assert run(stream=again, samples=3, cache=cache) == first
    assert len(stream.asked) == 21
    assert again.asked == []


def test_more_samples_cost_only_what_is_new(tmp_path):
    cache = DiskCache(tmp_path)
    few = run(samples=2, cache=cache)
    stream = Stream()
    more = run(stream=stream, samples=5, cache=cache)
    assert len(stream.asked) == 7 * 3
    assert [r.attempts[:2] for r in more] == [r.attempts for r in few]


@pytest.mark.parametrize("killed_after", [1, 4, 11])
def test_a_killed_run_goes_on_where_it_was(tmp_path, killed_after):
    whole = run(samples=2)
    cache = DiskCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(stream=Stream(killed_after), samples=2, cache=cache)
    torn = next(tmp_path.rglob("*.json"))
    (torn.parent / "x.tmp").write_text('{"key": ')  # a write that was cut short
    stream = Stream()
    assert run(stream=stream, samples=2, cache=cache) == whole
    assert len(stream.asked) == 14 - killed_after


def test_a_damaged_entry_is_made_anew(tmp_path):
    cache = DiskCache(tmp_path)
    first = run(cache=cache)
    next(tmp_path.rglob("*.json")).write_text('{"key": 1')
    stream = Stream()
    assert run(stream=stream, cache=cache) == first
    assert len(stream.asked) == 1


@pytest.mark.parametrize("change", [{"name": "other"}, {"seed": 1}])
def test_another_model_or_seed_shares_no_attempts(tmp_path, change):
    cache, stream = DiskCache(tmp_path), Stream()
    run(cache=cache)
    run(stream=stream, cache=cache, **change)
    assert len(stream.asked) == 7


def test_samples_of_one_prompt_are_asked_for_together():
    stream = Stream()
    solver = direct(stream, rows=2)
    asks = make_asks(
        PROBLEMS[:3], task=TASK, tokenizer=TOKENIZER, samples=3, seed=0, greedy=False
    )
    del asks[4]  # one that was kept
    found = dict(solver.solve(asks))
    assert sorted(found) == list(range(8))
    assert stream.batches == [2, 1]  # two prompts with 3 samples, one with 2
    assert isinstance(asks[0], Ask)


@pytest.mark.parametrize(("n", "right"), [(5, 0), (5, 2), (8, 3), (4, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, right):
    import itertools

    rewards = [1.0] * right + [0.5] * (n - right)  # half a reward is not right
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(rewards, k))
        expected = statistics.fmean(1.0 in subset for subset in subsets)
        assert pass_at(k, rewards) == pytest.approx(expected)


def test_the_bootstrap_agrees_with_the_binomial():
    values = [1.0] * 30 + [0.0] * 70
    low, high = interval(values)
    error = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert low == pytest.approx(0.3 - error, abs=0.012)
    assert high == pytest.approx(0.3 + error, abs=0.012)
    assert interval(values) == (low, high)
    assert interval([1.0] * 5) == (1.0, 1.0)


def test_the_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = random.Random(0)
    inside = 0
    for _ in range(300):
        low, high = interval([float(rng.random() < 0.4) for _ in range(80)])
        inside += low <= 0.4 <= high
    assert 0.90 < inside / 300 < 0.98


def test_the_mean_over_sets_weighs_sets_alike():
    sets = [[1.0] * 10, [0.0, 1.0] * 500]
    low, high = mean_interval(sets)
    assert low < 0.75 < high
    assert high - low < 0.05  # the small set has no spread
    assert np.isclose((low + high) / 2, 0.75, atol=0.01)


def config(**changes):
    fields = {
        "task": "math", "data": "", "eval_sets": (), "eval_problems": 0,
        "eval_samples": 1,
    }  # fmt: skip
    return ConfigDict(fields | changes)


@pytest.fixture
def folder(tmp_path):
    for name, count in (("b", 3), ("a", 5), ("c", 1)):
        rows = [
            {"id": f"{name}{i}", "question": f"{i}+1?", "answer": str(i + 1)}
            | {"source": name, "split": "eval"}
            for i in range(count)
        ]
        rows.append(rows[0] | {"id": "again"})  # a repeated question
        write_rows(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


MATH = MathTask(data="", seed=0, template="plain")


def names(sets):
    return [(of.name, len(of.problems), of.samples, of.sampled) for of in sets]


def test_sets_are_files_of_a_folder_in_the_order_asked(folder):
    found = eval_sets(config(data=str(folder), eval_sets=("b", "a@8")), MATH)
    assert names(found) == [("b", 4, 1, False), ("a", 6, 8, True)]
    found = eval_sets(config(data=str(folder), eval_sets=("*",)), MATH)
    assert names(found) == [("a", 6, 1, False), ("b", 4, 1, False), ("c", 2, 1, False)]


def test_files_that_are_named_are_the_sets(folder):
    data = f"{folder}/c.jsonl, {folder}/a.jsonl"
    found = eval_sets(config(data=data, eval_sets=("gsm8k", "a@4")), MATH)
    assert names(found) == [("c", 2, 1, False), ("a", 6, 4, True)]


def test_fewer_problems_are_spread_over_a_set(folder):
    (found,) = eval_sets(
        config(data=str(folder), eval_sets=("a",), eval_problems=3), MATH
    )
    assert [p.id for p in found.problems] == ["a0", "a2", "a4"]


@pytest.mark.parametrize("sets", [("a", "nine"), ("a@0",), ("a@",), ("a b",)])
def test_unknown_sets_and_bad_entries_are_refused_by_name(folder, sets):
    with pytest.raises(ValueError, match="eval_sets names"):
        eval_sets(config(data=str(folder), eval_sets=sets), MATH)


def test_all_problems_of_no_set_are_refused():
    with pytest.raises(ValueError, match="eval_sets, which is empty; set one"):
        eval_sets(config(eval_problems=0), MATH)


def test_the_paper_s_table_is_known_by_name():
    from configs import eval_math

    names = {entry.partition("@")[0] for entry in eval_math.get_config().eval_sets}
    assert names == {*eval_math.TABLE_4, "gsm8k", "math500"}
    assert names <= set(MATH.sources)
    assert len(eval_math.TABLE_4) == 10


def write_report(folder, results, averaged=()):
    about = {"model": "m", "engine": "sampler", "task": "math", "threshold": 0}
    report(
        folder, results, about=about, score_rule="argmax", averaged=averaged,
        seconds=1.0,
    )  # fmt: skip


def test_the_report_has_every_attempt_with_its_reason(tmp_path, capsys):
    def of(question, *rewards):
        reasons = {1.0: "same_number", 0.0: "other_number"}
        return Evaluated(
            problem(question, "5"),
            tuple(Attempt("t\ud800", 7, True, {"x": 2}) for _ in rewards),
            tuple(Grade(r, "5", reasons[r], {"f1": r / 2}) for r in rewards),
        )

    results = {"one": [of("a", 1.0, 0.0), of("b", 0.0, 0.0)], "two": [of("c", 1.0)]}
    write_report(tmp_path, results)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["accuracy"] == pytest.approx((0.25 + 1.0) / 2)
    assert summary["problems"] == 3
    whole = json.loads((tmp_path / "results.json").read_text())
    one = whole["sets"]["one"]
    assert one["measures"]["avg@2"]["value"] == 0.25
    assert one["measures"]["pass@2"]["value"] == 0.5
    assert one["measures"]["pass@1"]["value"] == 0.25
    assert one["reasons"] == {"other_number": 3, "same_number": 1}
    assert one["facts"] == {"x": 8}
    assert one["metrics"] == {"f1": 0.125}
    items = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [(i["set"], i["id"], i["sample"]) for i in items] == [
        ("one", "a", 0), ("one", "a", 1), ("one", "b", 0), ("one", "b", 1),
        ("two", "c", 0),
    ]  # fmt: skip
    assert {"extracted", "reason", "text", "reward", "answer", "tokens"} <= set(
        items[0]
    )


def test_the_average_is_over_the_sets_that_it_is_to_be_over(tmp_path, capsys):
    def of(reward):
        grade = Grade(reward, None, "no_answer")
        return [Evaluated(problem("a", "5"), (Attempt("", 1, True),), (grade,))]

    results = {"one": of(1.0), "two": of(0.0), "three": of(0.0)}
    write_report(tmp_path, results, averaged=("one", "two", "absent"))
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole["average"] == {
        "value": 0.5, "low": 0.5, "high": 0.5, "sets": ["one", "two"]
    }  # fmt: skip
    capsys.readouterr()

"""When a run counts as collapsed, and what it says then."""

import pytest

from ovd_jax import sft
from ovd_jax.cli import flags
from ovd_jax.reporting.collapse import (
    Collapsed,
    CollapseDetector,
    JudgeWatch,
    stop_if_collapsed,
)

OFF = dict(
    window=3, entropy=0.0, zero_spread=0.0, invalid_rate=0.0, short=0.0, truncated=0.0
)
HEALTHY = {
    "entropy": 0.5,
    "zero_spread_share": 0.5,
    "invalid_rate": 0.1,
    "completion_tokens": 90.0,
    "truncated_share": 0.1,
}


def watch(**bounds) -> CollapseDetector:
    return CollapseDetector.of(**OFF | bounds, max_skipped=10)


def feed(watch: CollapseDetector, *rows) -> None:
    for row in rows:
        watch.check(HEALTHY | row)


@pytest.mark.parametrize(
    ("knob", "bound", "metric", "bad"),
    [
        ("entropy", 0.1, "entropy", 0.05),
        ("zero_spread", 0.9, "zero_spread_share", 1.0),
        ("invalid_rate", 0.9, "invalid_rate", 0.95),
        ("short", 10.0, "completion_tokens", 4.0),
        ("truncated", 0.9, "truncated_share", 0.99),
    ],
)
def test_a_window_of_steps_beyond_a_bound_is_a_collapse(knob, bound, metric, bad):
    bounded = watch(**{knob: bound})
    feed(bounded, {metric: bad}, {metric: bad})
    with pytest.raises(Collapsed, match=f"{metric} was .*config.collapse.{knob} moves"):
        feed(bounded, {metric: bad})


def test_one_good_step_begins_the_window_anew():
    bounded = watch(entropy=0.1)
    low = {"entropy": 0.01}
    feed(bounded, low, low, {}, low, low)
    with pytest.raises(Collapsed):
        feed(bounded, low)


def test_each_bound_has_a_window_of_its_own():
    bounded = watch(entropy=0.1, invalid_rate=0.9)
    low, invalid = {"entropy": 0.01}, {"invalid_rate": 1.0}
    feed(bounded, low, low, invalid, invalid, low)
    feed(bounded, *[low | invalid])
    with pytest.raises(Collapsed, match="entropy"):
        feed(bounded, low)


def test_no_bound_no_window_and_no_such_metric_stop_nothing():
    worst = {name: 0.0 for name in HEALTHY}
    feed(watch(), *[worst] * 9)
    feed(watch(window=0, entropy=0.1), *[worst] * 9)
    searchless = watch(invalid_rate=0.5)
    for _ in range(9):
        searchless.check({"entropy": 0.0})


@pytest.mark.parametrize("most", [1, 3, 10])
def test_gradients_that_are_never_finite_stop_a_run_that_has_no_other_bound(most):
    bounded = CollapseDetector.of(**OFF, max_skipped=most)
    bad = {"loss": 0.25, "kl": float("inf"), "grad_norm": float("nan"), "step": 1}
    for count in (0, most - 1, 0):
        bounded.check(HEALTHY | bad | {"skipped_in_a_row": count})
    match = f"last {most + 1} optimizer .* were kl inf, grad_norm nan; the loss was 0.2"
    with pytest.raises(Collapsed, match=match):
        bounded.check(HEALTHY | bad | {"skipped_in_a_row": most + 1})


@pytest.mark.slow
def test_fine_tuning_that_has_blown_up_is_saved_and_stopped(tmp_path):
    """The first step throws the weights out of what float32 can hold."""
    config = flags.load_file("configs/sft.py")
    config.update(
        {"num_steps": 40, "batch_size": 4, "max_skipped": 6, "log_every": 4}
        | {"run_dir": str(tmp_path), "checkpoint_every": 0}
    )
    config.optimizer.update(learning_rate=1e30, warmup_steps=0.0)
    with pytest.raises(Collapsed, match="8 optimizer steps, which were skipped"):
        sft.main(config)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["9"]


def test_a_run_that_collapses_is_saved_and_stopped():
    calls = []

    class Checkpoints:
        def save(self, state, *, force):
            calls.append((state, force))

        def close(self):
            calls.append("closed")

    bounded = watch(entropy=0.1, window=2)
    low = HEALTHY | {"entropy": 0.0}
    stop_if_collapsed(bounded, low, Checkpoints(), "state")
    assert not calls
    with pytest.raises(Collapsed):
        stop_if_collapsed(bounded, low, Checkpoints(), "state")
    assert calls == [("state", True), "closed"]


def test_a_collapse_ends_a_program_with_its_message(capsys):
    def main(config):
        raise Collapsed("The run has collapsed: it says nothing new.")

    with pytest.raises(SystemExit) as stopped:
        flags.run(main, doc="", default="configs/quickstart.py", argv=["train.py"])
    assert stopped.value.code == 1
    assert "error: The run has collapsed: it says nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("precision", "accuracy", "warns"),
    [(0.3, 0.4, 1), (0.5, 0.4, 0), (None, 0.4, 0), (0.4, 0.4, 0)],
)
def test_a_judge_that_accepts_worse_than_it_is_given_is_warned_of(
    precision, accuracy, warns, caplog
):
    watch = JudgeWatch()
    for _ in range(15):
        watch.check({"accepted_right": precision, "accuracy": accuracy})
    assert len(caplog.records) == warns

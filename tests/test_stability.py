"""When a run counts as collapsed, and what it says then."""

import pytest
from ml_collections import ConfigDict

from ovd_jax import flags, train
from ovd_jax.stability import Collapsed, Watch

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


def watch(**bounds) -> Watch:
    return Watch.of(ConfigDict(OFF | bounds))


def feed(watch: Watch, *rows) -> None:
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
    low, void = {"entropy": 0.01}, {"invalid_rate": 1.0}
    feed(bounded, low, low, void, void, low)
    feed(bounded, *[low | void])
    with pytest.raises(Collapsed, match="entropy"):
        feed(bounded, low)


def test_no_bound_no_window_and_no_such_metric_stop_nothing():
    worst = {name: 0.0 for name in HEALTHY}
    feed(watch(), *[worst] * 9)
    feed(watch(window=0, entropy=0.1), *[worst] * 9)
    searchless = watch(invalid_rate=0.5)
    for _ in range(9):
        searchless.check({"entropy": 0.0})


def test_a_run_that_collapses_is_saved_and_stopped():
    calls = []

    class Checkpoints:
        def save(self, state, *, force):
            calls.append((state, force))

        def close(self):
            calls.append("closed")

    bounded = watch(entropy=0.1, window=2)
    low = HEALTHY | {"entropy": 0.0}
    train.stop_if_collapsed(bounded, low, Checkpoints(), "state")
    assert not calls
    with pytest.raises(Collapsed):
        train.stop_if_collapsed(bounded, low, Checkpoints(), "state")
    assert calls == [("state", True), "closed"]


def test_a_collapse_ends_a_program_with_its_message(capsys):
    def main(config):
        raise Collapsed("The run has collapsed: it says nothing new.")

    with pytest.raises(SystemExit) as stopped:
        flags.run(main, doc="", default="configs/quickstart.py", argv=["train.py"])
    assert stopped.value.code == 1
    assert "error: The run has collapsed: it says nothing" in capsys.readouterr().err

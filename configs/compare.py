"""The knobs of a comparison, which configs/compare_*.py fill in:

python launch/compare.py --config=configs/compare_quickstart.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.run_dir = "runs/compare"
    config.base = ""  # the config that is trained
    config.overrides = ()  # knobs that all trainings change: "num_steps=40"
    # A line of the table each: "label: knob=value knob=value". With `base=FILE` and
    # `eval_base=FILE` among them a run has configs of its own; `base=` with nothing
    # behind it trains nothing: the starting model, as it is.
    config.runs = ()
    config.seeds = (0,)
    config.eval_base = ""  # the config by which all are evaluated
    config.eval_overrides = ()
    config.tests = ("student alone: test_threshold=0",)  # ways to evaluate each run
    config.timeout_s = 7 * 86400.0  # of one training or evaluation
    return config

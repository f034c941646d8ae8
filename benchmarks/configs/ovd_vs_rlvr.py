"""The quickstart, shorter and measured more often; see benchmarks/ovd_vs_rlvr.py.

Groups are of four and not of two samples, which outcome rewards alone need.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs"
    config.num_steps = 80
    config.problems_per_step = 32
    config.samples = 4
    config.eval_every = 10
    config.checkpoint_every = 0
    config.loggers = ()
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

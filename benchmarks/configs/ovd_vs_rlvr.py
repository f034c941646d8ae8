"""The quickstart, shorter and measured more often; see benchmarks/ovd_vs_rlvr.py."""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs"
    config.num_steps = 40
    config.eval_every = 5
    config.checkpoint_every = 0
    config.loggers = ()
    return config

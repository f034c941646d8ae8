"""The quickstart's task and models, shorter and measured often; see
benchmarks/methods.py."""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs"
    config.seeds = (0, 1, 2)  # what an earlier call has run is not run again
    config.methods = ()  # rows of METHODS; empty: all
    config.num_steps = 60
    config.problems_per_step = 64
    config.samples = 2
    config.optimizer.schedule = "constant"  # so that a curve may be read anywhere
    config.eval_every = 10
    config.eval_problems = 200
    config.checkpoint_every = 0
    config.loggers = ()
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

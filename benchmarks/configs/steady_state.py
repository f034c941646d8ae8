"""The quickstart for 200 steps; see benchmarks/steady_state.py."""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/steady_state"
    config.num_steps = 200
    config.eval_every = 50
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

"""Knobs of benchmarks/early_dip.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.parts = ("supervised", "training")
    config.seeds = (0, 1, 2)
    config.optimizer_steps = 80  # supervised: ten batches of the quickstart have 80
    config.num_steps = 20  # training: rollout batches
    config.run_dir = "runs/early_dip"
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

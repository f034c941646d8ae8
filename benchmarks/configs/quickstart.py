"""Knobs of benchmarks/quickstart.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.parts = ("problems", "runs")
    config.seeds = (0, 1, 2)
    config.run_dir = "runs/quickstart_seeds"
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

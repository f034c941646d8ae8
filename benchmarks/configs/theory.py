"""Knobs of benchmarks/theory.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.students = (0.0, 1.0, 3.0)  # logits that a right choice gains
    config.teachers = (1.0, 3.0, 8.0)
    config.seeds = (0, 1, 2, 3, 4)  # problems of each pair
    config.threshold = 7  # where bias is measured
    config.counts = (100, 1000, 10_000, 100_000)  # trajectories an estimate
    config.estimates = 100  # for each count
    config.levels = (2, 3, 5, 10, 11, 100)  # v
    config.rate = 1.0  # of exact ascent
    config.steps = 300
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

"""Knobs of benchmarks/sampler.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.works = ("greedy", "top_p", "group")
    config.repeats = 5
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

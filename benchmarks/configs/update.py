"""Knobs of benchmarks/update.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.works = ("full", "ragged", "search")
    config.peers = ("tunix", "trl")
    config.repeats = 2
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

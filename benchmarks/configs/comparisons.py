"""Knobs of benchmarks/comparisons.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.comparisons = ("compare_quickstart",)  # files in configs/; :TEXT as for them
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

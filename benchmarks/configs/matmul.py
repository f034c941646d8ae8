"""Knobs of benchmarks/matmul.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.shapes = (  # (inputs, outputs, how many a step) of SmolLM2-135M
        (576, 960, 30),
        (576, 576, 30),
        (576, 3072, 30),
        (1536, 576, 30),
        (576, 49_152, 1),
    )
    config.rows = (8, 32)
    config.mib = 96  # of weights, more than caches hold
    config.repeats = 5
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

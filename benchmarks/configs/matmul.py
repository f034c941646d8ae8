"""Knobs of benchmarks/matmul.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.shapes = ((576, 960), (576, 3072), (1536, 576))  # of SmolLM2's products
    config.rows = (1, 8, 32)
    config.mib = 256  # of weights, more than caches hold
    config.repeats = 5
    return config

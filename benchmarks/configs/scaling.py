"""Knobs of benchmarks/scaling.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.model = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a name in models/known.py
    config.layers = 4  # of the model's; 0: all
    config.base = ConfigDict(dict(samples=8, prompt=256, completion=128, vocab=49_152))
    config.samples = (1, 2, 4, 8, 16)
    config.prompt = (64, 256, 1024)
    config.completion = (32, 128, 512)
    config.vocab = (4096, 16_384, 49_152, 151_936)
    config.remat = "full"
    config.chunk = 128
    config.microbatch_tokens = 8192
    config.repeats = 3
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

"""Knobs of benchmarks/memory.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    # The paper's arithmetic: Table 1, Figures 1 and 2, bytes over a network
    config.model = "Qwen/Qwen2.5-7B"  # a name in models/known.py, a folder, a hub name
    config.length = 8192
    config.batch = 8  # problems
    config.steps = 20  # K, scored steps of a trajectory
    config.levels = 10  # v
    config.bytes_per_token = 4.0  # of text

    # What XLA allocates
    config.students = ("Qwen/Qwen2.5-1.5B",)  # names in models/known.py
    config.teacher = "Qwen/Qwen2.5-7B"  # of token-level methods, in process
    config.platforms = ("cpu:8", "v5e:2x4")  # virtual devices; TPU topologies
    config.lengths = (1024, 4096)  # L, prompt and completion, at one sample
    config.samples = (1, 16)  # N, at `length_of_samples`
    config.full = False  # instead: three students, 1k to 32k, 1 to 32
    config.length_of_samples = 1024
    config.prompt = 256
    config.remat = "full"
    config.chunk = 1024
    config.k = 64  # the teacher's tokens in `top_k`

    # A real update
    config.real = True
    config.repeats = 2
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

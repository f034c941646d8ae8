"""Knobs of benchmarks/portability.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.points = (  # a name in models/known.py, devices, fsdp, tp, LoRA's rank
        ("Qwen/Qwen2.5-1.5B", "v5e:2x4", 4, 2, 0),
        ("Qwen/Qwen2.5-1.5B", "v5e:1x1", 1, 1, 16),
        ("Qwen/Qwen2.5-1.5B", "cpu:8", 4, 2, 0),
        ("Qwen/Qwen2.5-7B", "v5e:2x4", 2, 4, 0),
        ("Qwen/Qwen2.5-7B", "v5e:2x4", 2, 4, 16),
        ("Qwen/Qwen2.5-7B", "v5p:2x2x1", 4, 1, 0),
        ("Qwen/Qwen2.5-7B", "cpu:8", 2, 4, 0),
    )
    config.programs = ("add", "apply", "prefill", "decode")
    config.lower = "Qwen/Qwen2.5-1.5B"  # what is lowered for every platform
    config.dtype = "bfloat16"  # that is computed in; master weights are float32
    config.attention = "auto"  # auto: on TPUs a kernel of theirs | blocked
    config.remat = "full"
    config.chunk = 1024
    config.reference = True  # the KL term's model is held too
    # An update's part, and what is sampled, on each of data x fsdp devices:
    config.prompts = 1  # each with `samples` completions behind it
    config.samples = 8
    config.prompt = 512  # tokens
    config.completion = 1024
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

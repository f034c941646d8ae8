"""Every knob of export; `model` and `output` have to be set:

python launch/export.py --config.model=runs/math --config.output=math-1.5b
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.model = ""  # a run directory, a folder, a GGUF file or a hub name
    config.output = ""  # the folder to write; a model in it is replaced
    config.dtype = "bfloat16"  # of the weights: bfloat16 | float16 | float32
    config.max_shard_bytes = 5_000_000_000  # a file; more weights make several files
    return config

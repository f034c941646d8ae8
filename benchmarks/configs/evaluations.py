"""Knobs of benchmarks/evaluations.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.parts = ("gsm8k",)  # and maths, which needs `data`
    config.data = ""  # maths: the folder with the files NAME.jsonl
    config.sets = ("mawps", "asdiv", "svamp")  # maths
    config.problems = 24  # maths: of each set
    config.run_dir = "runs/evaluations"
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

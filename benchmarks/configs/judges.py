"""Knobs of benchmarks/judges.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.parts = ("arithmetic", "world")  # and processbench
    config.run_dir = "runs/judges"
    config.conversations = 120  # world: all of whose turns are scored
    # processbench:
    config.data = ""  # files of judged steps, with commas
    config.problems = 160  # of them
    config.model = "smollm2"  # in this process, where there is no url
    config.url = ""  # of an OpenAI-compatible server
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

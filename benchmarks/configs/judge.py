"""Knobs of benchmarks/judge.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.parts = ("arithmetic", "world", "slips")  # and processbench
    config.run_dir = "runs/judge"
    config.held_out = 400  # problems that each student is asked
    config.conversations = 120  # slips: of the world, all of whose turns are scored
    # processbench:
    config.data = ""  # files of judged steps, with commas
    config.problems = 160  # of them
    config.model = "smollm2"  # in this process, where there is no url
    config.url = ""  # of an OpenAI-compatible server
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

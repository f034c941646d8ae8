"""The search quickstart; see benchmarks/quickstart_search.py."""

from configs import quickstart_search


def get_config():
    config = quickstart_search.get_config()
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

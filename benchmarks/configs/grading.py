"""Knobs of benchmarks/grading.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.cases = "tests/tasks/grading_cases.jsonl"  # [answer, gold, ...] a line
    config.rounds = 3  # passes over them
    config.workers = 0  # 0: as many as cores, 8 at most
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

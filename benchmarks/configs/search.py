"""Knobs of benchmarks/search.py."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.parts = ("loop", "update")  # and retrieval
    config.engines = ("bm25", "simulated")
    config.steps = 6  # of training, of each engine; the first third is not counted
    config.repeats = 1
    config.corpus = ""  # retrieval: JSONL of id, title, text
    config.questions = ""  # retrieval: JSONL of question
    config.passages = 100_000  # retrieval: of the larger corpus
    config.run_dir = "runs/search_benchmark"
    config.publish = False  # to benchmarks/results, whatever the settings
    return config

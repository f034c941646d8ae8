"""Training rows of a simulated search engine:

python launch/make_simulator_data.py --config.corpus=CORPUS.jsonl
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.corpus = ""  # JSONL of id, title, text
    config.index_dir = ""  # of indices; empty: in the user's cache
    config.trajectories = ""  # recorded runs: a path, or a pattern such as RUNS/*.jsonl
    config.corpus_queries = 1000  # made of passages, beside those that were recorded
    config.documents = 3  # of a row
    config.told_share = 0.5  # of queries: with the question and its answer
    config.held_out_share = 0.2  # of the recorded questions: kept for measuring
    config.prompt = "plain"  # plain | chat: search/simulator_prompts.py
    config.output = "runs/simulator.jsonl"
    return config

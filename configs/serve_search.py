"""A retrieval server over a corpus on this machine:

python launch/serve_search.py --config.corpus=CORPUS.jsonl
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.corpus = ""  # JSONL of id, title, text
    config.index_dir = ""  # of indices; empty: in the user's cache
    config.host = "127.0.0.1"
    config.port = 8001
    config.topk = 3  # documents a query, where a request does not say
    config.timeout_s = 60.0  # of one request, from its first byte to its answer
    config.docs = False  # True: pages about the interface at /docs
    return config

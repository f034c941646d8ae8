"""A search engine of your own: it knows the made-up world by heart.

python launch/train.py --config=quickstart_search \
    --config.search.backend=examples/own_engine.py:KnowsAll
"""

import random

from ovd_jax.toy.world import World


class KnowsAll:
    """See `Engine` in ovd_jax/search/engine.py for what each member is for."""

    draws = True  # of several facts the seed picks some

    def __init__(self, config):
        self._world = World()
        self._topk = config.search.topk
        self.identity = {"engine": "knows all", "topk": self._topk}  # of the cache

    def find(self, queries, seeds):
        """The documents of each query, the best first."""
        return [
            tuple(
                fact.document
                for fact in self._world.find(
                    query.text, random.Random(seed), self._topk
                )
            )
            for query, seed in zip(queries, seeds, strict=True)
        ]

"""Search engines that a student may ask."""

from ovd_jax.search.base import SearchBackend


def make_search(config) -> SearchBackend:
    """The engine that `config.search` names."""
    raise ValueError(f"search.backend {config.search.backend!r} is not known.")

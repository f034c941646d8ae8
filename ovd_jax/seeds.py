"""Derives every random number from the run's seed and its purpose."""

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """A 31-bit seed for one use: `derive(seed, "collect", step)`."""
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) >> 1

"""Every random number is a function of the run's seed and of what it is for."""

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """A 31-bit seed for one use: `derive(seed, "collect", step)`."""
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) >> 1

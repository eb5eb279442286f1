"""Randomness as a function of (seed, purpose, counters): restored counters restore a run."""

import zlib

import numpy as np


def _sequence(seed: int, purpose: str, counters: tuple[int, ...]) -> np.random.SeedSequence:
    # With their number, since zeros at the end would not count.
    entropy = [seed, zlib.crc32(purpose.encode()), len(counters), *counters]
    return np.random.SeedSequence(entropy)


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Return a NumPy generator for one purpose at one count."""
    return np.random.default_rng(_sequence(seed, purpose, counters))


def integer(seed: int, purpose: str, *counters: int) -> int:
    """Return an integer in [0, 2**31), the range that environments and TensorFlow accept."""
    return int(_sequence(seed, purpose, counters).generate_state(1)[0] >> 1)


def stateless(seed: int, purpose: str, *counters: int) -> np.ndarray:
    """Return a seed of shape [2], int32, for TensorFlow's stateless random operations."""
    return _sequence(seed, purpose, counters).generate_state(2).view(np.int32)

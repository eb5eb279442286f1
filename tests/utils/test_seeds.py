"""Randomness is a function of seed, purpose and counters, and of each of them."""

import itertools

import numpy as np

from dreamer_bird.utils import seeds


def test_every_argument_counts():
    keys = itertools.product((0, 1, 2**31 - 1), ("act", "train"), ((), (0,), (0, 0), (1,), (0, 1)))
    keys = [(seed, purpose, *counters) for seed, purpose, counters in keys]
    assert len({seeds.integer(*key) for key in keys}) == len(keys)
    assert len({tuple(seeds.stateless(*key)) for key in keys}) == len(keys)
    assert len({seeds.generator(*key).random() for key in keys}) == len(keys)


def test_the_same_arguments_give_the_same_draws():
    assert seeds.integer(3, "environment", 7) == seeds.integer(3, "environment", 7)
    one, two = (seeds.generator(3, "replay", 7).random(5) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_ranges_and_types():
    draws = [seeds.integer(0, "environment", number) for number in range(2000)]
    assert min(draws) >= 0 and 2**30 < max(draws) < 2**31
    seed = seeds.stateless(0, "train", 0)
    assert seed.shape == (2,) and seed.dtype == np.int32


def test_consecutive_counters_are_uncorrelated():
    draws = np.array([seeds.generator(0, "prefill", 0, t).random() for t in range(2000)])
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.08
    assert abs(draws.mean() - 0.5) < 0.03

"""Random numbers: independence of everything that names them."""

from __future__ import annotations

import itertools
import math

from llmos.drivers.engine.sampling.philox import Stream, uniform


def test_each_of_the_names_matters() -> None:
    seeds = (0, 1, 2**32, 2**63 - 1)
    names = list(itertools.product(seeds, range(4), range(8), Stream))
    drawn = [uniform(*each) for each in names]
    assert len(set(drawn)) == len(names)
    assert drawn == [uniform(*each) for each in names]


def test_numbers_are_spread_evenly_and_follow_no_neighbour() -> None:
    count = 20_000
    drawn = [uniform(7, 0, position) for position in range(count)]
    assert all(0.0 <= number < 1.0 for number in drawn)
    mean = sum(drawn) / count
    assert abs(mean - 0.5) < 4 / math.sqrt(12 * count)
    together = sum((one - 0.5) * (other - 0.5) for one, other in itertools.pairwise(drawn)) / count
    assert abs(together) < 4 / (12 * math.sqrt(count))
    bins = [0] * 64
    for number in drawn:
        bins[int(number * 64)] += 1
    assert sum((seen - count / 64) ** 2 for seen in bins) / (count / 64) < 63 + 4 * math.sqrt(2 * 63)

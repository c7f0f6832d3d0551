"""What is going to be asked for, learned from what was."""

from __future__ import annotations

from itertools import cycle, islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.arbiter.expectation import AHEAD, MEMORIES, Expectation


def learned(requests: list[int]) -> Expectation[int]:
    expected: Expectation[int] = Expectation()
    for model in requests:
        expected.asked(model)
    return expected


def test_steady_traffic_is_expected_to_go_on() -> None:
    random = Random(1)
    expected = learned(random.choices(range(10), [2**-n for n in range(10)], k=3000))
    for model in range(3):
        assert expected.uses(model) == pytest.approx(AHEAD * 2 ** -(model + 1), rel=0.15)
    assert sum(expected.blend()[MEMORIES.index(800) :]) > 0.8


def test_in_bursts_what_was_asked_for_lately_counts() -> None:
    random, requests = Random(2), []
    while len(requests) < 3000:
        requests += [random.randrange(50)] * 20
    expected = learned([*requests, *[7] * 20, *[8] * 20])
    others = [expected.uses(model) for model in range(50) if model not in (7, 8)]
    assert expected.uses(8) > expected.uses(7) > max(others)
    assert sum(expected.blend()[:2]) > 0.8


def test_a_round_makes_all_as_likely() -> None:
    expected = learned(list(islice(cycle(range(40)), 3000)))
    uses = [expected.uses(model) for model in range(40)]
    assert max(uses) < 1.01 * min(uses)


def test_other_traffic_is_learned_too() -> None:
    random = Random(3)
    steady = random.choices(range(10), k=2000)
    bursts = [model for _ in range(60) for model in [random.randrange(10)] * 20]
    expected = learned([*steady, *bursts, *[11] * 20])
    assert sum(expected.blend()[:2]) > 0.5
    assert expected.uses(11) > max(expected.uses(model) for model in range(10))


def test_counts_stay_small_enough_however_long_it_runs() -> None:
    expected = learned([each % 3 for each in range(30_000)])
    assert expected.uses(0) == pytest.approx(AHEAD / 3, rel=0.05)


def test_a_model_that_is_forgotten_is_as_unknown_as_any() -> None:
    expected = learned([1, 1, 2, 2, 2, 1])
    assert expected.uses(1) > expected.uses(3)
    expected.forget(1)
    expected.forget(9)
    assert expected.uses(1) == expected.uses(3)


@given(st.lists(st.integers(0, 6), max_size=60))
def test_chances_are_chances(requests: list[int]) -> None:
    expected = learned(requests)
    known = set(requests)
    total = sum(expected.uses(model) for model in known)
    assert 0 <= total <= AHEAD + 1e-6 and expected.uses(99) > 0
    assert sum(expected.blend()) <= 1 + 1e-9

"""A trace over a policy, step by step."""

from __future__ import annotations

import pytest

from llmos.kernel.arbiter.policies import NAMES, LeastRecentlyUsed, policy_named
from llmos.kernel.arbiter.simulation.replay import percentile, replay
from llmos.kernel.arbiter.simulation.traces import Model, Request, Trace, trace

MODELS = (Model("a", 6, 2.0, 60), Model("b", 6, 3.0, 60), Model("c", 4, 1.0, 60))


def made(*requests: tuple[float, int, float], capacity: int = 10) -> Trace:
    return Trace("by hand", 0, capacity, MODELS, tuple(Request(*each) for each in requests))


def test_a_request_waits_for_its_load_and_shares_it() -> None:
    outcome = replay(made((0, 0, 1), (0.5, 0, 1), (10, 0, 1)), LeastRecentlyUsed())
    assert (outcome.loads, outcome.reload_s, outcome.evictions) == (1, 2.0, 0)
    assert outcome.waits == [2.0, 1.5, 0.0]


def test_loads_take_turns() -> None:
    outcome = replay(made((0, 0, 1), (0.5, 2, 1)), LeastRecentlyUsed())
    assert outcome.waits == [2.0, 2.5] and outcome.reload_s == 3.0


def test_room_is_made_and_what_left_is_loaded_again() -> None:
    outcome = replay(made((0, 0, 1), (10, 2, 1), (20, 1, 1), (30, 2, 1), (40, 0, 1)), LeastRecentlyUsed())
    assert (outcome.loads, outcome.evictions) == (4, 2)  # b throws a out, c stays, a throws b out
    assert outcome.reload_s == 2 + 1 + 3 + 2 and outcome.deferred_s == 0


def test_without_room_requests_wait_in_order_until_something_has_ended() -> None:
    outcome = replay(made((0, 0, 10), (1, 1, 1), (2, 2, 1), (3, 0, 0)), LeastRecentlyUsed())
    assert outcome.waits == [2.0, 0.0, 14.0, 14.0]  # a is served at once, b from 12, c after it
    assert outcome.deferred_s == 11.0 and outcome.loads == 3


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0 and percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(100)), 0.99) == 98 and percentile([5], 0.99) == 5
    assert replay(made((0, 0, 1), (9, 0, 1)), LeastRecentlyUsed()).wait(0.99) == 2.0


@pytest.mark.parametrize("name", NAMES)
def test_every_request_is_answered_once_and_bytes_are_never_over_the_device(name: str) -> None:
    whole = trace("bursty", 3, 400, models=12, share=0.3)
    outcome = replay(whole, policy_named(name, 5))
    assert len(outcome.waits) == 400 and min(outcome.waits) >= 0
    assert outcome.evictions <= outcome.loads and outcome.reload_s > 0

"""The policies of other systems, which the value policy is measured against."""

from __future__ import annotations

from llmos.kernel.arbiter.policies import Count, KeepAliveOrder, LeastRecentlyUsed, policy_named
from llmos.kernel.arbiter.residence import Candidate, Policy, choose

VIEW = [
    Candidate("b", 10, used=3_000_000_000, keep_alive_s=5),
    Candidate("a", 10, used=2_000_000_000, keep_alive_s=300),
    Candidate("c", 10, used=1_000_000_000, keep_alive_s=-1),
    Candidate("d", 10, used=4_000_000_000, keep_alive_s=5),
]


def order(policy: Policy, needed: int = 40) -> list[str]:
    return [choice.candidate.model for choice in choose(policy, VIEW, needed, 10_000_000_000)]


def test_the_least_recently_used_leaves_first() -> None:
    assert order(LeastRecentlyUsed()) == ["c", "a", "b", "d"] and order(LeastRecentlyUsed(), 11) == ["c", "a"]


def test_the_shortest_keep_alive_leaves_first_then_the_name_decides() -> None:
    assert order(KeepAliveOrder()) == ["b", "d", "a", "c"]
    (choice,) = choose(KeepAliveOrder(), VIEW, 1, 10_000_000_000)
    assert choice.numbers == {"keep_alive_s": 5, "idle_s": 7.0}


def test_a_limit_of_models_counts_whatever_they_hold() -> None:
    assert order(Count(4), 0) == ["c"] and order(Count(3), 0) == ["c", "a"] and order(Count(4), 25) == ["c", "a", "b"]
    assert order(Count(5), 0) == [] and order(Count(0), 0) == [] and order(Count(0), 1) == ["c"]
    assert choose(Count(4), VIEW, 0, 10_000_000_000)[0].numbers == {"idle_s": 9.0, "limit": 4}


def test_policies_by_name() -> None:
    assert policy_named("count", 7) == Count(7)
    for name in ("value", "lru", "count", "keep-alive"):
        assert policy_named(name).name == name and policy_named(name).rule

"""Requests per minute and at a time, by key."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls.errors import OverQuota
from llmos.userland.gateway.core import limits
from llmos.userland.gateway.core.caller import Caller, KeyLimits
from llmos.userland.gateway.core.limits import Limiter


def caller(key: str = "k", *, per_minute: int = 0, concurrent: int = 0) -> Caller:
    made = KeyLimits(requests_per_minute=per_minute, concurrent=concurrent)
    return Caller(key, "anna", f"key-{key}", frozenset({"infer"}), limits=made)


def test_a_key_without_limits_is_only_counted() -> None:
    limiter = Limiter()
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(limiter.admit(caller(), 0.0))
        assert limiter.running("k") == 500
    assert limiter.running("k") == 0 == limiter.running("never seen")


def test_what_is_under_way_is_bounded() -> None:
    limiter = Limiter()
    with limiter.admit(caller(concurrent=2), 0.0):
        with limiter.admit(caller(concurrent=2), 0.0):
            with pytest.raises(OverQuota) as raised, limiter.admit(caller(concurrent=2), 0.0):
                pass
            error = raised.value
            assert (error.what, error.limit, error.retry_after_ms) == ("concurrent", 2, 1000)
            with limiter.admit(caller("other", concurrent=1), 0.0):
                pass
        with limiter.admit(caller(concurrent=2), 0.0):
            pass


@pytest.mark.parametrize(("own", "whole", "least"), [(0, 3, 3), (5, 3, 3), (2, 3, 2), (2, 0, 2)])
def test_the_lower_of_its_own_and_everybodys_bound_counts(own: int, whole: int, least: int) -> None:
    limiter = Limiter(whole)
    with ExitStack() as stack:
        for _ in range(least):
            stack.enter_context(limiter.admit(caller(concurrent=own), 0.0))
        with pytest.raises(OverQuota) as raised:
            stack.enter_context(limiter.admit(caller(concurrent=own), 0.0))
    assert raised.value.limit == least


def test_a_request_that_fails_gives_its_place_back() -> None:
    limiter = Limiter()
    with pytest.raises(RuntimeError), limiter.admit(caller(concurrent=1), 0.0):
        raise RuntimeError
    assert limiter.running("k") == 0


def test_a_minutes_worth_at_once_then_its_rate() -> None:
    limiter = Limiter()
    mine = caller(per_minute=6)
    for _ in range(6):
        with limiter.admit(mine, 100.0):
            pass
    with pytest.raises(OverQuota) as raised, limiter.admit(mine, 101.0):
        pass
    assert (raised.value.what, raised.value.limit) == ("requests_per_minute", 6)
    assert raised.value.retry_after_ms == 9001
    with limiter.admit(mine, 101.0 + 9.001):
        pass
    with pytest.raises(OverQuota), limiter.admit(mine, 110.1):
        pass


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 40)), max_size=60),
)
def test_in_no_minute_more_than_twice_the_limit(per_minute: int, steps: list[tuple[str, float]]) -> None:
    limiter = Limiter()
    now = 0.0
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for key, wait in steps:
        now += wait
        try:
            with limiter.admit(caller(key, per_minute=per_minute), now):
                taken[key].append(now)
        except OverQuota as error:
            assert error.retry_after_ms >= 1
            # What it says is true: after that time the request is let in.
            assert any(now - at < 60 for at in taken[key])
    for times in taken.values():
        for start in times:
            within = sum(1 for at in times if start <= at < start + 60)
            assert within <= 2 * per_minute
        assert len(times) <= per_minute + now * per_minute / 60 + 1e-6


def test_keys_that_were_idle_for_long_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MANY", 3)
    limiter = Limiter()
    with limiter.admit(caller("runs", per_minute=1), 0.0):
        for number in range(10):
            with limiter.admit(caller(str(number), per_minute=1), 1000.0 * (number + 1)):
                pass
        assert limiter.running("runs") == 1
        assert len(limiter._uses) <= 3
        with pytest.raises(OverQuota), limiter.admit(caller("9", per_minute=1), 10_001.0):
            pass

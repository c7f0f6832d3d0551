"""Quotas, with a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.arbiter.quotas import DAY, MINUTE, SECOND, Allowance, Over, Quota, first_over, relevant
from llmos.syscalls.types import Limits


def quota(**limits: int) -> Quota:
    return Quota("user 1000", Limits(**limits), 0)


def test_a_minutes_worth_is_there_at_once() -> None:
    tokens = quota(tokens_per_minute=600)
    assert tokens.over(0) is None
    tokens.spend("tokens_per_minute", 600, 0)
    over = tokens.over(0)
    assert over == Over("user 1000", "tokens_per_minute", 600, 600, SECOND // 10)
    assert over is not None and over.retry_after_ms == 100
    assert over.text == (
        "the quota of 600 tokens per minute of user 1000 is used up (600 used); try again in 100 ms"
    )
    assert tokens.over(SECOND // 10) is None


def test_a_refusal_carries_its_numbers() -> None:
    over = Over("user 1", "requests_per_minute", 2, 2, 1_500_000)
    reason = over.reason
    assert (reason.code, reason.rule) == ("quota.over", "requests_per_minute")
    assert reason.numbers == {"limit": 2, "used": 2, "retry_after_ms": 2, "who": "user 1"}


def test_debt_is_paid_before_anything_new() -> None:
    allowance = Allowance(60, MINUTE, 0)
    allowance.spend(90, 0)
    assert allowance.balance(0) == -30 and allowance.wait_ns(0) == 31 * SECOND
    assert allowance.wait_ns(30 * SECOND) == SECOND and allowance.wait_ns(31 * SECOND) == 0


def test_it_holds_one_period_and_no_more() -> None:
    allowance = Allowance(60, MINUTE, 0)
    assert allowance.balance(100 * MINUTE) == 60 and allowance.full(100 * MINUTE)
    allowance.spend(60, 200 * MINUTE)
    assert allowance.balance(200 * MINUTE) == 0 and not allowance.full(200 * MINUTE)
    assert allowance.balance(200 * MINUTE + 30 * SECOND) == 30


def test_another_amount_counts_at_once_and_forgives_nothing() -> None:
    tokens = quota(tokens_per_minute=600)
    tokens.spend("tokens_per_minute", 690, 0)
    tokens.set_limits(Limits(tokens_per_minute=60), 0)
    over = tokens.over(0)
    assert over is not None and (over.limit, over.used, over.retry_ns) == (60, 150, 91 * SECOND)
    tokens.set_limits(Limits(), 0)
    assert tokens.over(0) is None and tokens.idle(0)


def test_requests_per_minute() -> None:
    requests = quota(requests_per_minute=2)
    for _ in range(2):
        assert requests.over(0) is None
        requests.begin(0)
    over = requests.over(0)
    assert over is not None and over.what == "requests_per_minute" and over.retry_ns == 30 * SECOND
    assert requests.over(30 * SECOND) is None


def test_device_time_comes_back_over_the_day() -> None:
    seconds = quota(device_seconds_per_day=86_400)
    seconds.spend("device_seconds_per_day", 86_400_000_000, 0)
    over = seconds.over(0)
    assert over is not None and over.used == 86_400 and over.retry_ns == 1000
    assert not seconds.idle(0) and seconds.idle(DAY)


def test_requests_at_once() -> None:
    few = quota(concurrent_requests=2)
    few.begin(0)
    assert few.over(0) is None and not few.idle(0)
    few.begin(0)
    over = few.over(0)
    assert over is not None and over.what == "concurrent_requests" and over.retry_after_ms == 100
    assert over.text == "user 1000 has 2 requests under way, the limit is 2; try again in 100 ms"
    few.end(8 * SECOND)
    few.begin(0)
    over = few.over(0)
    assert over is not None and over.retry_after_ms == 4000
    few.end(16 * SECOND)
    few.begin(0)
    over = few.over(0)
    assert over is not None and over.retry_after_ms == 4500


def test_the_longest_wait_is_told() -> None:
    both = quota(concurrent_requests=1, requests_per_minute=1, tokens_per_minute=60)
    both.begin(0)
    over = both.over(0)
    assert over is not None and over.what == "requests_per_minute"
    both.spend("tokens_per_minute", 61, 0)
    assert both.over(0) == over
    other = Quota("user 1001", Limits(tokens_per_minute=1), 0)
    assert first_over([], 0) is None and first_over([both, other], 0) == over
    other.spend("tokens_per_minute", 5, 0)
    worst = first_over([both, other], 0)
    assert worst is not None and worst.who == "user 1001"


def test_which_limits_matter_here() -> None:
    assert not any(relevant(Limits(handles=5, weight=3, device_bytes=7)))
    assert relevant(Limits(concurrent_requests=1, tokens_per_minute=2)) == (1, 2, 0, 0)


def test_an_allowance_of_nothing_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="allowance of 0"):
        Allowance(0, MINUTE, 0)


@given(
    st.integers(1, 100_000),
    st.lists(st.tuples(st.integers(0, 200 * SECOND), st.integers(0, 5000)), min_size=1, max_size=30),
)
def test_over_any_time_no_more_starts_than_the_quota_pays_for(per_minute: int, steps: list[tuple[int, int]]) -> None:
    tokens = quota(tokens_per_minute=per_minute)
    now, spent = 0, 0
    for wait, used in steps:
        now += wait
        over = tokens.over(now)
        if over is not None:
            now += over.retry_after_ms * 1_000_000
            assert tokens.over(now) is None, "the hint is long enough"
        assert spent < per_minute + now * per_minute / MINUTE
        tokens.spend("tokens_per_minute", used, now)
        spent += used

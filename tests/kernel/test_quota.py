"""Tokens per minute, with a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.quota import MINUTE, TokenBucket
from llmos.syscalls.errors import OverQuota

SECOND = MINUTE // 60


def test_a_minutes_worth_is_there_at_once() -> None:
    bucket = TokenBucket(600, 0)
    bucket.check(0)
    bucket.spend(600, 0)
    with pytest.raises(OverQuota, match="600 tokens per minute is used up; try again in 100 ms") as over:
        bucket.check(0)
    assert (over.value.what, over.value.limit, over.value.retry_after_ms) == ("tokens_per_minute", 600, 100)
    bucket.check(SECOND // 10)


def test_debt_is_paid_before_anything_new() -> None:
    bucket = TokenBucket(60, 0)
    bucket.spend(90, 0)
    assert bucket.balance(0) == -30
    with pytest.raises(OverQuota) as over:
        bucket.check(0)
    assert over.value.retry_after_ms == 31_000
    with pytest.raises(OverQuota):
        bucket.check(30 * SECOND)
    bucket.check(31 * SECOND)


def test_it_holds_one_minute_and_no_more() -> None:
    bucket = TokenBucket(60, 0)
    assert bucket.balance(100 * MINUTE) == 60
    bucket.spend(60, 200 * MINUTE)
    assert bucket.balance(200 * MINUTE) == 0
    assert bucket.balance(200 * MINUTE + 30 * SECOND) == 30


def test_another_quota_counts_at_once_and_forgives_nothing() -> None:
    bucket = TokenBucket(600, 0)
    bucket.spend(90, 0)
    bucket.resize(60, 0)
    assert bucket.balance(0) == 60 and bucket.balance(MINUTE) == 60
    bucket.spend(100, MINUTE)
    bucket.resize(6000, MINUTE)
    assert bucket.balance(MINUTE) == -40 and bucket.balance(MINUTE + SECOND) == 60
    bucket.resize(6, MINUTE + SECOND)
    bucket.spend(6, MINUTE + SECOND)
    with pytest.raises(OverQuota) as over:
        bucket.check(MINUTE + SECOND)
    assert (over.value.limit, over.value.retry_after_ms) == (6, 10_000)


def test_a_quota_of_nothing_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="0 tokens"):
        TokenBucket(0, 0)


@given(
    st.integers(1, 100_000),
    st.lists(st.tuples(st.integers(0, 200 * SECOND), st.integers(0, 5000)), min_size=1, max_size=30),
)
def test_over_any_time_no_more_starts_than_the_quota_pays_for(per_minute: int, steps: list[tuple[int, int]]) -> None:
    bucket = TokenBucket(per_minute, 0)
    now, spent = 0, 0
    for wait, tokens in steps:
        now += wait
        try:
            bucket.check(now)
        except OverQuota as over:
            retry = now + over.retry_after_ms * 1_000_000
            bucket.check(retry)
            now = retry
        assert spent < per_minute + now * per_minute / MINUTE
        bucket.spend(tokens, now)
        spent += tokens

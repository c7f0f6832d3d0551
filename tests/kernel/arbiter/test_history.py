"""Expected use, and seconds of loads, from what was seen."""

from __future__ import annotations

import pytest

from llmos.kernel.arbiter.history import History, Key, weight_of
from llmos.kernel.arbiter.residence import SECOND
from llmos.syscalls.types import WorkClass

A, B = Key("/a", "1", "cpu0"), Key("/b", "1", "cpu0")


def test_the_rate_is_that_of_the_requests() -> None:
    history = History()
    assert history.rate(A) == 0
    for index in range(2000):
        history.asked(B if index % 4 == 3 else A, index * 2 * SECOND)
    assert history.rate(A) == pytest.approx(3 / 8, rel=0.1) and history.rate(B) == pytest.approx(1 / 8, rel=0.1)
    assert 0 < history.rate(Key("/a", "2", "cpu0")) < history.rate(B) / 100


def test_a_quiet_night_changes_nothing_between_models() -> None:
    history = History()
    for index in range(300):
        history.asked(B if index % 4 == 3 else A, index * SECOND)
    before = history.rate(A) / history.rate(B)
    history.asked(A, 9 * 3600 * SECOND)
    assert before < history.rate(A) / history.rate(B) < before * 1.1


def test_a_weighted_use_counts_so_much_more() -> None:
    history = History()
    for index in range(20):
        history.asked(A, index * SECOND, weight=4)
        history.asked(B, index * SECOND)
    assert history.rate(A) / history.rate(B) == pytest.approx(4, rel=0.1)


def test_who_asks_decides_how_much_it_counts() -> None:
    interactive, batch, background = (weight_of(each, 0) for each in WorkClass)
    assert interactive > batch > background > 0
    assert weight_of(WorkClass.BATCH, 100) == 2 * batch and weight_of(WorkClass.BATCH, -100) == batch / 2
    assert weight_of(WorkClass.BATCH, 1000) == 8 * batch and weight_of(WorkClass.BATCH, -1000) == batch / 8


def test_seconds_are_measured_else_by_the_rate_of_the_device() -> None:
    history = History()
    assert history.seconds(A, "load", 3 * 10**9) == 3 and history.seconds(A, "wake", 8 * 10**9) == 1
    history.measured(A, "load", 10**9, 4.0)
    assert history.seconds(A, "load", 5) == 4.0 and history.seconds(B, "load", 2 * 10**9) == 8.0
    history.measured(A, "load", 10**9, 2.0)
    assert 2 < history.seconds(A, "load", 5) < 4
    assert history.seconds(A, "wake", 8 * 10**9) == 1 and history.seconds(Key("/b", "1", "gpu0"), "load", 10**9) == 1
    history.measured(B, "wake", 0, 0.0)
    assert history.seconds(B, "wake", 5) == 0.0 and history.seconds(A, "wake", 8 * 10**9) == 1


def test_only_so_many_models_are_remembered() -> None:
    history = History(limit=2)
    for path in ("/a", "/b", "/a", "/c"):
        history.asked(Key(path, "1", "cpu0"), 0)
    history.asked(Key("/c", "1", "cpu0"), SECOND)
    unknown = history.rate(Key("/d", "1", "cpu0"))
    assert history.rate(A) > unknown == history.rate(B)
    history.measured(B, "load", 5, 9.0)
    assert history.rate(A) == history.rate(B) and history.seconds(B, "load", 5) == 9.0

"""What is refused early, and with which numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.arbiter.admission import (
    DEADLINE, MEASURED, QUEUE, Pace, Refusal, bounded_ms, hopeless, refusal,
)  # fmt: skip

SECOND = 1_000_000_000


def pace(*seconds: float, work_class: int = 0) -> Pace:
    made = Pace()
    for each in seconds:
        made.measured(work_class, int(each * SECOND))
    return made


def test_a_wait_is_what_is_ahead_and_one_more_slot() -> None:
    steady = pace(*[2] * MEASURED)
    assert steady.wait_ns((0, 0, 0), 1) == 2 * SECOND
    assert steady.wait_ns((3, 0, 0), 4) == 2 * SECOND
    assert steady.wait_ns((3, 0, 0), 0) == 8 * SECOND


def test_classes_take_their_own_time() -> None:
    both = pace(1, 1)
    both.measured(1, 10 * SECOND)
    assert [both.service_ns(rank) for rank in range(3)] == [SECOND, 10 * SECOND, 10 * SECOND]
    assert both.wait_ns((2, 3, 0), 1) == (2 + 30 + 10) * SECOND


def test_the_margin_follows_how_much_runs_vary() -> None:
    assert pace(*[2] * 10).most_ns(0, 8 * SECOND) == (8 + 1 + 2) * SECOND
    varied = pace(*[1, 3] * 20)
    assert varied.most_ns(0, 0) == pytest.approx(2 * SECOND + 2 * SECOND, rel=0.1)


def test_the_shortest_run_is_forgotten_slowly() -> None:
    quick = pace(4)
    assert quick.quick_ns == 4 * SECOND
    quick.measured(0, SECOND)
    assert quick.quick_ns == SECOND
    for _ in range(10):
        quick.measured(0, 8 * SECOND)
    assert 1.5 * SECOND < quick.quick_ns < 2 * SECOND


def test_nothing_is_refused_on_a_guess() -> None:
    guess = pace(*[100] * (MEASURED - 1))
    assert refusal(guess, 0, 10**15, 1, 1) is None and not hopeless(guess, 0, 1)
    guess.measured(0, 100 * SECOND)
    assert refusal(guess, 0, 10**15, 1, 1) is not None and hopeless(guess, 0, 1)


def test_what_would_miss_its_deadline() -> None:
    steady = pace(*[2] * MEASURED)
    assert refusal(steady, 0, 8 * SECOND, 11 * SECOND, 0) is None
    found = refusal(steady, 0, 8 * SECOND, 10 * SECOND, 0)
    assert found == Refusal(DEADLINE, 8 * SECOND, 11 * SECOND, 10 * SECOND)
    assert found is not None and found.numbers == {
        "predicted_wait_s": 8.0, "needed_s": 11.0, "allowed_s": 10.0,
    }  # fmt: skip
    assert found.short_ns == SECOND
    assert found.text == "it would wait about 8.0 s and could need 11.0 s in all, and its deadline is in 10.0 s"


def test_what_would_wait_longer_than_policy_allows() -> None:
    steady = pace(*[2] * MEASURED)
    assert refusal(steady, 0, 8 * SECOND, None, 8 * SECOND) is None
    assert refusal(steady, 0, 8 * SECOND, None, 0) is None
    found = refusal(steady, 0, 8 * SECOND, None, 7 * SECOND)
    assert found == Refusal(QUEUE, 8 * SECOND, 8 * SECOND, 7 * SECOND)
    assert found is not None and found.text == "it would wait about 8.0 s, and requests may wait 7.0 s"


def test_what_is_hopeless() -> None:
    steady = pace(*[2] * MEASURED)
    assert not hopeless(steady, 0, None) and not hopeless(steady, 0, 2 * SECOND)
    assert hopeless(steady, 0, 2 * SECOND - 1)


def test_one_short_run_gives_no_hope_to_all_others() -> None:
    mostly = pace(*[4] * 40, 1)
    assert mostly.quick_ns == SECOND
    assert hopeless(mostly, 0, 3 * SECOND) and not hopeless(mostly, 0, 4 * SECOND)
    assert hopeless(mostly, 1, 3 * SECOND), "of a class that was not measured yet"
    mixed = pace(*[1, 9] * 20)
    assert not hopeless(mixed, 0, 3 * SECOND), "it may well be one of the short ones"


def test_those_turned_away_come_again_one_after_the_other() -> None:
    """As fast as slots become free: every second here. Who comes later finds the line shorter."""
    steady = pace(*[2] * MEASURED)
    assert [steady.come_again_ms(0, SECOND // 2, 2) for _ in range(4)] == [500, 1500, 2500, 3500]
    assert steady.come_again_ms(3 * SECOND, SECOND // 2, 2) == 1500
    assert steady.come_again_ms(100 * SECOND, SECOND, 2) == 1000
    assert [steady.come_again_ms(0, SECOND, 2) for _ in range(200)][-1] == 60_000


def test_hints_are_bounded() -> None:
    assert [bounded_ms(ns) for ns in (-5, 0, 150_000_001, 10**15)] == [100, 100, 151, 60_000]
    assert Pace().retry_after_ms(0) == 100 and pace(8).retry_after_ms(2) == 4000


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=60), st.integers(0, 2))
def test_means_stay_between_what_was_measured(runs: list[int], work_class: int) -> None:
    made = Pace()
    for run in runs:
        made.measured(work_class, run)
        assert made.quick_ns <= max(runs)
    assert min(runs) - 1 <= made.service_ns(work_class) <= max(runs) and made.quick_ns >= min(runs)

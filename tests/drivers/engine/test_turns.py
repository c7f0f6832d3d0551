"""Whose turn it is: classes strictly, then priorities, deadlines, arrival; and nobody waits for ever."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import Prompt, Request
from llmos.drivers.engine.turns import AGING, CALM, CLASSES, MINIMA, MOST_HAD, Classes, Dues, Guests, late, place
from llmos.syscalls.errors import TimedOut


def request(**fields: Any) -> Request:
    return Request("r", "m", Prompt(text="x"), **fields)


def test_classes_go_before_priorities_priorities_before_arrival() -> None:
    order = [
        place(request(priority=1), 5.0), place(request(), 1.0), place(request(), 2.0),
        place(request(work_class="batch", priority=100), 0.0), place(request(work_class="background"), 0.0),
    ]  # fmt: skip
    assert order == sorted(order)


def test_a_near_deadline_goes_first() -> None:
    assert place(request(deadline=10.0), 8.0) < place(request(), 0.0)
    assert place(request(deadline=1000.0), 8.0) == place(request(), 8.0)


@given(st.sampled_from(CLASSES), st.integers(-5, 5))
def test_in_a_class_waiting_is_bounded(work_class: str, priority: int) -> None:
    low = place(request(work_class=work_class, priority=-5), 0.0)
    high = request(work_class=work_class, priority=priority)
    assert place(high, 2 * AGING * 10 + 1) > low


def test_a_deadline_that_has_passed_is_told() -> None:
    assert late(request(), 1.0) is None and late(request(deadline=1.5), 1.0) is None
    event = late(request(deadline=1.0), 1.0)
    assert event is not None and event.request == "r"
    with pytest.raises(TimedOut):
        raise event.error


# ---- what lower classes are owed


def share_of_turns(minima: dict[str, float], present: set[int], lengths: list[float]) -> tuple[list[int], list[float]]:
    """Each step is of one class alone: who had it, and the seconds of each."""
    classes, steps = Classes(), []
    classes.set(minima)
    seconds = [0.0] * len(CLASSES)
    for length in lengths:
        chosen = classes.next(present)
        assert classes.next(present) == chosen, "asking changes nothing"
        steps.append(chosen)
        seconds[chosen] += length
        classes.spent(present, chosen, length)
    return steps, seconds


@given(
    part=st.sampled_from([0.05, 0.1, 0.3]), lengths=st.lists(st.floats(0.01, 1.0), min_size=200, max_size=200),
)  # fmt: skip
def test_a_lower_class_gets_its_part_and_never_two_steps_in_a_row(part: float, lengths: list[float]) -> None:
    steps, seconds = share_of_turns({"batch": part}, {0, 1}, lengths)
    assert all(0 in pair for pair in pairwise(steps)), "nobody stands behind it longer than a step"
    assert abs(seconds[1] - part * sum(lengths)) <= 2 * max(lengths) + max(lengths) * part


def test_its_waiting_is_bounded() -> None:
    steps, _ = share_of_turns({"batch": 0.1, "background": 0.05}, {0, 1, 2}, [0.1] * 400)
    for rank, part in ((1, 0.1), (2, 0.05)):
        at = [step for step, chosen in enumerate(steps) if chosen == rank]
        assert max(b - a for a, b in pairwise(at)) <= 1 / part + 2


def test_a_class_without_a_minimum_waits() -> None:
    steps, _ = share_of_turns({"batch": 0.0, "background": 0.0}, {0, 1, 2}, [0.1] * 50)
    assert set(steps) == {0}


def test_what_is_not_said_is_as_by_default() -> None:
    told = share_of_turns(dict(MINIMA), {0, 1, 2}, [0.1] * 300)
    assert told == share_of_turns({}, {0, 1, 2}, [0.1] * 300)


def test_one_class_alone_owes_nobody() -> None:
    dues = Dues()
    for _ in range(10):
        assert dues.turn({1}) is None
        dues.spent({1}, {1: 1.0}, None)
    waited = 0.0
    while dues.turn({0, 1}) is None:
        dues.spent({0, 1}, {0: 0.1}, None)
        waited += 0.1
    assert waited == pytest.approx(MOST_HAD / MINIMA["batch"], abs=0.11), "half a second of what it had counts, no more"


def test_what_a_class_has_alone_counts_only_where_a_part_is_owed() -> None:
    dues = Dues()
    dues.set({"batch": 0.0})
    for _ in range(10):
        dues.spent({1}, {1: 1.0}, None)
    dues.set({"batch": 0.1})
    dues.spent({0, 1}, {0: 1.0}, None)
    assert dues.turn({0, 1}) == 1


def test_where_a_job_has_time_between_requests_it_takes_none_of_theirs() -> None:
    """Requests come in bursts of half the time: the background has the other half, and no step inside a burst."""
    dues = Dues()
    for _ in range(20):
        for _ in range(10):
            assert dues.turn({2}) is None
            dues.spent({2}, {2: 0.1}, None)
        for _ in range(50):
            assert dues.turn({0, 2}) is None
            dues.spent({0, 2}, {0: 0.02}, None)


def test_what_it_gets_beside_the_others_counts_for_its_part_and_not_against_it() -> None:
    dues = Dues()
    for _ in range(10):
        assert dues.turn({0, 1}) is None
        dues.spent({0, 1}, {0: 0.5, 1: 0.5}, None)
    dues.spent({0, 1}, {0: 1.0}, None)
    assert dues.turn({0, 1}) == 1


def test_the_class_that_is_owed_most_goes_first() -> None:
    dues = Dues()
    dues.set({"batch": 0.1, "background": 0.2})
    dues.spent({0, 1, 2}, {0: 1.0}, None)
    assert dues.turn({0, 1, 2}) == 2
    dues.spent({0, 1, 2}, {2: 1.0}, 2)
    assert dues.turn({0, 1, 2}) is None, "never two lower ones in a row"
    dues.spent({0, 1, 2}, {0: 1.0}, None)
    assert dues.turn({0, 1, 2}) == 1


def test_a_turn_that_was_chosen_is_void_when_its_class_has_gone() -> None:
    classes = Classes()
    assert classes.next({0, 1}) == 0
    classes.spent({0, 1}, 0, 1.0)
    assert classes.next({0, 1}) == 1
    assert classes.next({0}) == 0
    classes.spent({0}, 0, 1.0)
    assert classes.next({1}) == 1


# ---- higher classes that may come


def test_steps_are_brief_as_long_as_higher_requests_come() -> None:
    guests = Guests()
    guests.came({1}, 0.0)
    guests.came({0, 1}, 1.0)
    assert guests.bound(1, 1.0) == math.inf, "nothing is known of them"
    guests.began(0, 0.2)
    assert guests.bound(0, 1.0) == math.inf and guests.bound(1, 1.0) == guests.bound(2, 1.0) == 0.2
    guests.came({1}, 5.0)
    guests.began(1, 0.1)
    assert guests.bound(2, 5.0) == 0.1 and guests.bound(1, 5.0) == 0.2, "those above a class count"
    assert guests.bound(1, 1.0 + CALM) == 0.2 and guests.bound(1, 1.1 + CALM) == math.inf
    guests.came({0}, 50.0)
    assert guests.bound(1, 50.0) == 0.2


def test_what_beginnings_take_is_followed() -> None:
    guests = Guests()
    guests.came({0}, 0.0)
    for _ in range(30):
        guests.began(0, 0.4)
    guests.began(0, 0.2)
    assert 0.2 < guests.bound(1, 0.0) < 0.4
    for _ in range(30):
        guests.began(0, 0.2)
    assert guests.bound(1, 0.0) == pytest.approx(0.2, rel=0.01)

"""Whose turn it is: classes, priorities, deadlines, arrival, and nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import Prompt, Request
from llmos.drivers.engine.turns import AGING, CLASSES, late, place
from llmos.syscalls.errors import TimedOut


def request(**fields: Any) -> Request:
    return Request("r", "m", Prompt(text="x"), **fields)


def test_classes_go_before_priorities_priorities_before_arrival() -> None:
    order = [
        place(request(priority=1), 5.0), place(request(), 1.0), place(request(), 2.0),
        place(request(work_class="batch"), 0.0), place(request(work_class="background", priority=1), 0.0),
    ]  # fmt: skip
    assert order == sorted(order)


def test_a_near_deadline_goes_first() -> None:
    assert place(request(deadline=10.0), 8.0) < place(request(), 0.0)
    assert place(request(deadline=1000.0), 8.0) == place(request(), 8.0)


@given(st.sampled_from(sorted(CLASSES)), st.integers(-5, 5))
def test_waiting_is_bounded(work_class: str, priority: int) -> None:
    low = place(request(work_class="background", priority=-5), 0.0)
    high = request(work_class=work_class, priority=priority)
    assert place(high, 2 * AGING * (max(CLASSES.values()) + 10) + 1) > low


def test_a_deadline_that_has_passed_is_told() -> None:
    assert late(request(), 1.0) is None and late(request(deadline=1.5), 1.0) is None
    event = late(request(deadline=1.0), 1.0)
    assert event is not None and event.request == "r"
    with pytest.raises(TimedOut):
        raise event.error

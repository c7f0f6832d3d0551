"""Steps that leave a part of the time to others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.pacing import Pacing


def test_all_of_the_time_means_no_waiting() -> None:
    pacing = Pacing()
    pacing.stepped(0.0, 5.0)
    assert pacing.wait(5.0) == 0.0


@given(st.sampled_from([0.1, 0.5, 0.9]), st.lists(st.floats(0.001, 2.0), min_size=1, max_size=40))
def test_steps_take_their_part_and_waste_none_of_it(part: float, lengths: list[float]) -> None:
    pacing, now = Pacing(), 100.0
    pacing.set(part)
    for length in lengths:
        pacing.stepped(now, now + length)
        now += length
        now += pacing.wait(now)
    assert now - 100.0 == pytest.approx(sum(lengths) / part)


def test_idle_time_is_not_saved_up() -> None:
    pacing = Pacing()
    pacing.set(0.5)
    pacing.stepped(0.0, 1.0)
    assert pacing.wait(1.0) == 1.0 and pacing.wait(50.0) == 0.0
    pacing.stepped(50.0, 51.0)
    assert pacing.wait(51.0) == 1.0


def test_a_part_that_is_given_back_counts_at_once() -> None:
    pacing = Pacing()
    pacing.set(0.1)
    pacing.stepped(0.0, 1.0)
    assert pacing.wait(1.0) == 9.0
    pacing.set(1.0)
    assert pacing.wait(1.0) == 0.0

"""Where a model is placed, and what is said of the devices that were passed over."""

from __future__ import annotations

import pytest

from llmos.kernel.placing import RULE, Seat, place
from llmos.syscalls.errors import Unavailable


def test_accelerators_come_before_the_cpu_and_null_devices_last() -> None:
    seats = [Seat("null0", "ready"), Seat("cpu0", "ready"), Seat("cuda1", "starting"), Seat("cuda0", "ready")]
    name, reason = place(seats)
    assert name == "cuda0" and reason.code == "device.placed" and reason.rule == RULE
    assert reason.numbers == {"devices": 4, "usable": 4} and "the first of 4 that" in reason.text
    assert place(seats[:2])[0] == "cpu0"


@pytest.mark.parametrize(("state", "how"), [("failed", "reset"), ("stopped", "start")])
def test_a_fallback_says_which_device_was_not_there(state: str, how: str) -> None:
    name, reason = place([Seat("cpu0", "ready"), Seat("cuda0", state, "no driver"), Seat("cuda1", state)])
    assert name == "cpu0" and reason.code == "device.fallback" and reason.numbers == {"devices": 3, "usable": 1}
    assert f"cuda0 is {state} (no driver), cuda1 is {state}" in reason.text
    assert f"llmos driver {how} cuda0" in reason.change


def test_a_lesser_device_that_is_down_is_no_fallback() -> None:
    reason = place([Seat("cpu0", "failed"), Seat("cuda0", "ready")])[1]
    assert reason.code == "device.placed" and reason.text == "cuda0 was chosen, the only one that can take a model"


def test_without_a_usable_device_the_states_are_told() -> None:
    with pytest.raises(Unavailable, match="no device can take a model now: cpu0 is failed"):
        place([Seat("cpu0", "failed")])

"""The bench: events that do not keep to the contract are caught wherever they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llmos.drivers.conformance.device_bench import MODEL, DeviceBench, Outcome
from llmos.drivers.conformance.verdicts import Broken
from llmos.drivers.contract import DoneEvent, StepEvent
from llmos.drivers.devices.null import NullDevice
from llmos.syscalls.errors import NoDeviceMemory

Make = Callable[..., DeviceBench]


def twisted(twist: Callable[[list[StepEvent]], Sequence[StepEvent]]) -> type[NullDevice]:
    class Twisted(NullDevice):
        def step(self) -> Sequence[StepEvent]:
            return twist(list(super().step()))

    return Twisted


def test_requests_run_together_until_all_have_ended(device_bench: Make) -> None:
    bench = device_bench()
    bench.load()
    first, second = bench.run(bench.request("ab", stream=True), bench.request("abcd"))
    assert (first.choice.text, second.choice.text) == ("ab", "abcd")
    assert [chunk.text for chunk in first.chunks] == ["a", "b", ""]
    assert first.steps == second.steps == 5


def test_a_failed_request_raises_its_error_when_its_result_is_wanted(device_bench: Make) -> None:
    bench = device_bench()
    bench.load()
    outcome = bench.one(bench.request("!oom; x"))
    assert outcome.ended and outcome.done is None
    with pytest.raises(NoDeviceMemory):
        outcome.result()


@pytest.mark.parametrize(
    ("twist", "text"),
    [
        (lambda events: events + events, "again after its end"),
        (lambda events: [*events, DoneEvent("nobody", "x")], "which nobody made"),
        (lambda events: [DoneEvent(e.request, "x", new_tokens=object()) for e in events], "cannot be sent"),
        (lambda events: ["done"], "no attribute"),
    ],
)
def test_events_that_make_no_sense_are_caught(device_bench: Make, twist: Any, text: str) -> None:
    bench = device_bench(twisted(twist))
    bench.load()
    with pytest.raises((Broken, AttributeError), match=text):
        bench.one(bench.request())


def test_a_result_needs_a_choice() -> None:
    with pytest.raises(Broken, match="no choice"):
        _ = Outcome(done=DoneEvent("r", "x")).choice


def test_bytes_are_counted_by_model(device_bench: Make) -> None:
    bench = device_bench()
    bench.load()
    bench.load("other")
    assert bench.held() == 2 * bench.held(MODEL) > 0
    bench.unload()
    assert not bench.is_loaded() and bench.held(MODEL) == 0
    bench.close()
    assert bench.held() == 0

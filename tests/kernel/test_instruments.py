"""The kernel's own metrics. That they are documented is tested with the documentation."""

from __future__ import annotations

from scripted import Inside, Program

from llmos.kernel.instruments import refresh
from llmos.kernel.residency import State


def test_gauges_show_what_is_there(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    number = program.send("watch_events", system=program.system)
    refresh(kernel.kernel)
    instruments = kernel.kernel.instruments
    found = instruments.registry.snapshot("")
    assert found["llmos_requests_in_flight"].value == 1 and found["llmos_kernel_resident_bytes"].value > 1 << 20
    assert found['llmos_device_bytes{device="null0",what="free"}'].value == (1 << 20) - 1024
    program.control(model, "sleep")
    refresh(kernel.kernel)
    states = {s: instruments.models.labels(s.value).value for s in State}
    assert states == {**dict.fromkeys(State, 0), State.ASLEEP: 1}
    program.cancel(number)
    program.wait(number)


def test_bytes_that_were_given_back_are_not_shown_any_more(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    refresh(kernel.kernel)
    program.call("unload_model", model=model)
    refresh(kernel.kernel)
    found = kernel.kernel.instruments.registry.snapshot("llmos_device_bytes")
    assert found['llmos_device_bytes{device="null0",what="weights"}'].value == 0

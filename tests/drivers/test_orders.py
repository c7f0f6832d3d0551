"""Shares, budgets and who lets others go, through a real host."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from llmos.syscalls.wire import MessageKind

LOCATED = {"path": "/models/m", "version": "v2", "files": []}
NOTED = """
    import os
    from llmos.drivers.devices.null import NullDevice
    from llmos.drivers.hookspecs import hookimpl

    class Device(NullDevice):
        def set_shares(self, shares):
            self.note("shares", shares)

        def set_budget(self, budget):
            self.note("budget", budget)

        def note(self, what, given):
            with open(os.environ["NOTES"], "a") as notes:
                print(what, sorted(given.items()), file=notes)

    @hookimpl
    def register_devices(register):
        register("noted0", Device)
"""
PLAIN = """
    from llmos.drivers.contract import Device as Base
    from llmos.drivers.devices.null import NullDevice
    from llmos.drivers.hookspecs import hookimpl

    class Device(NullDevice):
        set_shares, set_budget, preempt = Base.set_shares, Base.set_budget, Base.preempt

    @hookimpl
    def register_devices(register):
        register("plain0", Device)
"""
LONG = {"max_tokens": 400, "ignore_eos": True}


def test_they_are_taken(null: Any) -> None:
    assert null.call("set_shares", {"shares": {"m": 0.25, "unknown": 0.75}}) == {}
    assert null.call("set_budget", {"budget": {"interactive": 1.0, "batch": 0.2, "recompute_tokens": 512}}) == {}
    assert null.call("set_budget", {"budget": {}}) == {}


def test_shares_reach_all_versions_of_a_model_by_the_ids_of_the_device(
    host_of: Any, package: Any, tmp_path: Path
) -> None:
    kernel = host_of("noted0", {**package("noted0", NOTED).environ, "NOTES": str(tmp_path / "notes")})
    kernel.start()
    kernel.load()
    running = kernel.submit("!slow 10; x", "old", sampling=LONG)
    kernel.call("swap", {"id": "m", "model": LOCATED})
    kernel.call("set_shares", {"shares": {"m": 0.5, "gone": 0.5}})
    kernel.call("set_budget", {"budget": {"batch": 0.1, "device": 1.0}})
    kernel.call("cancel", {"id": "old"})
    kernel.answer(running)
    said = (tmp_path / "notes").read_text()
    assert "shares [('m', 0.5), ('m~2', 0.5)]" in said
    assert "budget [('batch', 0.1)]" in said, "the device's own part is kept by the host"


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("set_shares", {"shares": {"m": -0.1}}), ("set_shares", {"shares": {"m": 1.5}}),
        ("set_shares", {"shares": {"m": math.nan}}), ("set_budget", {"budget": {"batch": 2.0}}),
        ("set_budget", {"budget": {"device": 0.0}}), ("set_budget", {"budget": {"recompute_tokens": -1.0}}),
        ("set_budget", {"budget": {"bulk": 0.1}}),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(null: Any, call: str, body: dict[str, Any]) -> None:
    error = null.call(call, body)
    assert error["name"] == "BadArgument", error
    assert text(null.answer(null.submit("hi"))) == "hi"


def test_a_driver_that_takes_none_says_so_and_its_host_keeps_to_its_part(host_of: Any, package: Any) -> None:
    kernel = host_of("plain0", package("plain0", PLAIN).environ)
    kernel.start()
    kernel.load()
    number = kernel.submit("!slow 10; x", sampling=LONG)
    for call, body in (
        ("set_shares", {"shares": {"m": 1.0}}), ("set_budget", {"budget": {"device": 0.5}}), ("preempt", {"id": "r"}),
    ):  # fmt: skip
        assert kernel.call(call, body)["name"] == "NotSupported"
    kernel.call("cancel", {"id": "r"})
    assert kernel.answer(number).kind is MessageKind.END


def test_a_request_lets_others_of_its_class_go_first(host_of: Any, package: Any) -> None:
    kernel = host_of("null0")
    kernel.start(slots=1)
    kernel.load()
    first = kernel.submit("!slow 5; x", "first", sampling=LONG)
    second = kernel.submit("short", "second")
    assert kernel.call("preempt", {"id": "first"}) == {}
    ended = [m.request for m in (kernel.answer(second), kernel.answer(first))]
    order = [m.request for m in kernel.log if m.kind is MessageKind.END]
    assert order == ended == [second, first]
    assert kernel.call("preempt", {"id": "first"})["name"] == "NotFound"


def test_an_interactive_request_goes_before_batch_work_that_fills_all_slots(host_of: Any) -> None:
    kernel = host_of("null0")
    kernel.start(slots=2)
    kernel.load()
    numbers = [kernel.send("submit", work(f"b{at}", "!slow 4; x", "batch", LONG)) for at in range(3)]
    urgent = kernel.send("submit", work("urgent", "hi", "interactive", {}))
    assert text(kernel.answer(urgent)) == "hi"
    assert not [m for m in kernel.log if m.kind is MessageKind.END and m.request in numbers]
    ended = [kernel.answer(number) for number in numbers]
    assert [len(m.body["value"]["choices"][0]["tokens"]) for m in ended] == [400] * 3, "nothing is lost"


def test_a_part_of_the_time_is_left_to_others(null: Any) -> None:
    """The steps take as long in either case; what is between them does not."""
    null.call("set_budget", {"budget": {"device": 0.1}})
    number = null.submit("!slow 40; x", "paced", sampling={"max_tokens": 6, "ignore_eos": True})
    while null.call("stats")["values"]["running"] != 1:  # calls are answered meanwhile
        assert not [m for m in null.log if m.kind is MessageKind.END and m.request == number], "it ended unseen"
    value = null.answer(number).body["value"]
    took = null.log[-1]
    assert took.kind is MessageKind.END and value["usage"]["device_ns"] >= 6 * 40e6


def work(id: str, said: str, work_class: str, sampling: dict[str, Any]) -> dict[str, Any]:
    asked = {"id": id, "model": "m", "input": {"type": "text", "text": said}, "sampling": sampling}
    return {"work": asked, "work_class": work_class}


def text(answer: Any) -> str:
    return str(answer.body["value"]["choices"][0]["text"])

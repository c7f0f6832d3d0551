"""Loaded models: sleep and wake. Lost devices: `test_returning.py`; loading: `handlers/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scripted import MEMORY, Inside, Program, inside, loaded, rows

from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadModel, BadState, NoDeviceMemory, NotSupported, OverQuota, Unavailable
from llmos.syscalls.events import Memory
from llmos.syscalls.types import LedgerRow


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def free(kernel: Inside) -> int:
    return kernel.kernel.ledger.free("null0")


def control(program: Program, model: int, action: str, **options: object) -> int:
    return program.send("control_object", handle=model, action=action, options=options)


# ---- sleep and wake


def test_sleep_frees_what_the_device_says_it_freed(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["sleep"] = loaded(rows=rows(100))
    program.control(model, "sleep")
    assert free(kernel) == MEMORY - 100
    program.control(model, "wake")
    assert free(kernel) == MEMORY - 1024
    assert program.state(model) == "awake"


def test_a_model_in_use_does_not_sleep(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x")
    assert isinstance(program.control_error(model, "sleep"), BadState)
    kernel.null.release("submit")
    program.wait(number)
    program.control(model, "sleep")
    assert isinstance(program.control_error(model, "sleep"), BadState)


def test_a_device_that_cannot_sleep_leaves_the_model_awake(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["sleep"] = NotSupported("no")
    assert isinstance(program.control_error(model, "sleep"), NotSupported)
    assert program.state(model) == "awake"
    number = program.start(model, "x")
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_a_request_wakes_a_sleeping_model(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    number = program.start(model, "x")
    kernel.null.release("submit")
    assert "model.waking" in program.wait(number).reasons


def test_a_wake_that_does_not_fit_ends_those_who_wait(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    program.call("alloc_gpu", device=program.grants["null0"], bytes=MEMORY)
    number = program.start(model, "x")
    assert isinstance(program.wait(number).error, NoDeviceMemory)
    assert program.state(model) == "asleep"


def test_a_failed_wake_is_a_failed_model_and_the_next_one_loads_it(
    kernel: Inside, program: Program, model: int
) -> None:
    program.control(model, "sleep")
    kernel.null.answers["wake"] = BadModel("damaged")
    assert isinstance(program.wait(program.start(model, "x")).error, BadModel)
    info = program.call("stat_object", handle=model)
    assert (info["state"], info["health"]) == ("failed", "failed")
    assert info["reasons"][0]["code"] == "load.failed" and free(kernel) == MEMORY
    before = kernel.null.calls[1][1]["id"]
    program.control(model, "wake")
    assert program.state(model) == "awake"
    assert ("unload", before) == (kernel.null.calls[-3][0], kernel.null.calls[-3][1]["id"])
    assert kernel.null.last("load")["id"] != before


def test_a_wake_that_has_its_room_keeps_it_whatever_others_take_meanwhile(
    kernel: Inside, program: Program, model: int
) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    number = control(program, model, "wake")
    kernel.null.event(Memory(device="null0", rows=[], foreign_bytes=MEMORY))
    kernel.null.release("wake")
    assert program.wait(number).error is None and program.state(model) == "awake"


def test_a_wake_takes_no_more_than_policy_allows(folder: Path) -> None:
    tenth = MEMORY // 10
    settings = f"[policy.uid.{os.getuid()}.limits]\ndevice_bytes = {8 * tenth}\n"
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        answers = {"plan": PlanRows(rows=rows(5 * tenth)), "load": loaded(5 * tenth), "wake": loaded(5 * tenth)}
        kernel.null.answers.update(answers)
        first = program.load("first")
        program.control(first, "sleep")
        second = program.load("second")
        assert isinstance(program.control_error(first, "wake"), OverQuota) and program.state(first) == "asleep"
        program.call("unload_model", model=second)
        program.control(first, "wake")
        assert program.state(first) == "awake"


def test_a_wake_that_a_lease_of_the_same_owner_came_before_gives_its_room_back(folder: Path) -> None:
    tenth = MEMORY // 10
    settings = f"[policy.uid.{os.getuid()}.limits]\ndevice_bytes = {11 * tenth}\n"
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        kernel.null.answers.update(plan=PlanRows(rows=rows(5 * tenth)), load=loaded(5 * tenth))
        model = program.load("first")
        program.control(model, "sleep")
        large = {"plan": PlanRows(rows=rows(6 * tenth)), "load": loaded(6 * tenth)}
        kernel.null.answers.update(large, sleep=loaded(rows=[LedgerRow(device="host", what="weights", owner="",
                                                                        allocator=6 * tenth)]))  # fmt: skip
        program.load("second")
        kernel.null.answers["plan"] = PlanRows(rows=rows(5 * tenth))
        kernel.null.holds.add("sleep")
        body = {"handle": model, "action": "wake", "options": {}}
        woken = program.send("control_object", work_class="batch", **body)
        program.call("alloc_gpu", device=program.grants["null0"], bytes=4 * tenth)
        kernel.null.release("sleep")
        assert isinstance(program.wait(woken).error, OverQuota) and program.state(model) == "asleep"
        assert free(kernel) == MEMORY - 4 * tenth


def test_wakes_at_the_same_time_are_one(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    numbers = [control(program, model, "wake") for _ in range(2)]
    kernel.null.release("wake")
    assert all(program.wait(number).value["state"] == "awake" for number in numbers)
    assert kernel.null.names().count("wake") == 1


def test_a_wake_tells_all_who_wait_how_far_it_has_come(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    numbers = [control(program, model, "wake"), control(program, model, "wake"), program.start(model, "x")]
    kernel.null.progress("wake", 3)
    kernel.null.release("wake")
    kernel.null.release("submit")
    assert [[told["done"] for told in program.wait(number).progress] for number in numbers] == [[3], [3], [3]]
    program.control(model, "sleep")
    number = control(program, model, "wake")
    kernel.null.progress("wake", 4)
    kernel.null.release("wake")
    assert [told["done"] for told in program.wait(number).progress] == [4]


def test_a_request_waits_for_the_end_of_a_sleep(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.holds.add("sleep")
    sleeping = control(program, model, "sleep")
    number = program.start(model, "x")
    kernel.null.release("sleep")
    program.wait(sleeping)
    kernel.null.release("submit")
    assert program.wait(number).error is None and program.state(model) == "awake"


# ---- what the journal says of it


def told(kernel: Inside, program: Program, model: int) -> list[str]:
    """What the journal says of the model since it was last asked, and that its reasons are those the model holds."""
    info = program.call("stat_object", handle=model)
    records = [record for record in kernel.kernel.journal.read(about=info["id"]) if record.unit == "model"]
    held = [reason["text"] for reason in info["reasons"]]
    assert held and held == [reason.text for reason in records[-1].reasons]
    return [record.text for record in records[1:]]


def test_a_sleep_and_a_wake_are_told_with_who_asked(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    assert told(kernel, program, model) == [f"tiny is put to sleep: 'test' asked for it ({program.session})"]
    number = program.start(model, "x")
    kernel.null.release("submit")
    program.wait(number)
    waking, awake = told(kernel, program, model)[1:]
    assert waking.startswith("tiny was asleep and is made ready: 'test' needs it (r-")
    assert awake == "tiny is awake again on null0 in 0.00 s"


def test_an_idle_sleep_is_told(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "keep_alive", seconds=5)
    kernel.advance(6)
    (text,) = told(kernel, program, model)
    assert text.startswith("tiny is put to sleep: it was not used for ") and text.endswith("; keep_alive is 5 s")


def test_a_lost_device_and_the_load_after_it_are_told(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.dies(cause="exit status 3")
    lost = "tiny is lost: driver null0 ended: exit status 3"
    assert told(kernel, program, model) == [lost]
    kernel.null.starts()
    ready = "tiny was lost and is made ready: its driver is back"
    assert told(kernel, program, model) == [lost, ready, "tiny is loaded on null0 in 0.00 s"]


@pytest.mark.parametrize("end", [True, False])
def test_a_device_that_ends_with_the_kernel_is_no_warning(
    kernel: Inside, program: Program, model: int, end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if end:
        monkeypatch.setattr(kernel.kernel.supervisor, "stop", lambda *_: None)
        kernel.kernel.drain()
    kernel.null.dies(cause="exit status 3")
    (record,) = [each for each in kernel.kernel.journal.read() if "is lost" in each.text]
    assert record.level == ("info" if end else "warning")


def test_a_wake_that_fails_is_told(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.answers["wake"] = BadModel("damaged")
    program.control_error(model, "wake")
    info = program.call("stat_object", handle=model)
    last = kernel.kernel.journal.read(about=info["id"])[-1]
    assert (last.text, last.level) == ("tiny is failed: damaged", "warning")
    kernel.null.dies()
    assert program.call("stat_object", handle=model)["reasons"] == info["reasons"]


# ---- adapters


def test_an_adapter_is_dropped_by_name(kernel: Inside, program: Program, model: int) -> None:
    program.call("load_model", path="/models/adapter", base=model)
    error = program.control_error(model, "adapter_drop", name="nothing")
    assert "it has adapter" in str(error)
    program.control(model, "adapter_drop", name="adapter")
    assert len(program.names("/proc/models")) == 1
    assert "it has none" in str(program.control_error(model, "adapter_drop", name="adapter"))


def test_a_refusal_says_when_a_smaller_context_would_help(kernel: Inside, program: Program) -> None:
    kernel.null.answers["plan"] = PlanRows(rows=[*rows(10), *rows(2 * MEMORY, "kv")])
    error = program.error("load_model", path="/models/big")
    assert isinstance(error, NoDeviceMemory) and "smaller max_context" in str(error)


def test_room_that_cannot_be_made_is_a_refusal(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["plan"] = PlanRows(rows=rows(MEMORY))
    kernel.null.answers["sleep"] = BadState("not now")
    assert isinstance(program.error("load_model", path="/models/big"), NoDeviceMemory)
    assert program.state(model) == "awake"


def test_a_model_unloaded_while_room_is_made_is_passed_over(kernel: Inside, program: Program, model: int) -> None:
    kernel.advance(1)
    second = program.load("second")
    kernel.null.answers["plan"] = PlanRows(rows=rows(MEMORY))
    kernel.null.holds.add("sleep")
    number = program.send("load_model", path="/models/big")
    program.call("unload_model", model=second)
    kernel.null.release("sleep")
    assert program.wait(number).value["name"] == "big"
    assert kernel.null.names().count("sleep") == 1 and program.state(model) == "asleep"


def test_a_name_whose_model_is_on_its_way_cannot_be_taken_over(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    waking = control(program, model, "wake")
    for replace in (False, True):
        error = program.error("load_model", path="/models/other", options={"name": "tiny", "replace": replace})
        assert isinstance(error, Unavailable)
    kernel.null.release("wake")
    assert program.wait(waking).error is None

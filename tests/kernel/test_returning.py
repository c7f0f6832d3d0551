"""Models whose device is lost, and comes back or does not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from scripted import MEMORY, Inside, Program, inside, loaded, located, rows

from llmos.kernel.supervisor import DriverState
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadModel, Cancelled, DriverFailed, NoDeviceMemory, NotFound, PeerGone, Unavailable
from llmos.syscalls.types import LedgerRow
from llmos.syscalls.wire import error_frames


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def control(program: Program, model: int, action: str) -> int:
    return program.send("control_object", handle=model, action=action, options={})


def test_models_come_back_with_their_device_bases_first(kernel: Inside, program: Program, model: int) -> None:
    adapter = program.call("load_model", path="/models/adapter", base=model)["handle"]
    kernel.null.dies()
    assert (program.state(model), program.state(adapter)) == ("lost", "lost")
    assert kernel.kernel.ledger.rows("null0") == []
    kernel.null.calls.clear()
    kernel.null.starts()
    assert (program.state(model), program.state(adapter)) == ("awake", "awake")
    loads = [body["base"] for name, body in kernel.null.calls if name == "load"]
    assert loads[0] == "" and loads[1] != ""


def test_what_slept_is_cold_when_its_device_returns(kernel: Inside, program: Program, model: int) -> None:
    adapter = program.call("load_model", path="/models/adapter", base=model)["handle"]
    kernel.null.answers["sleep"] = loaded(rows=[LedgerRow(device="host", what="weights", owner="", allocator=5)])
    program.control(model, "pin")
    program.control(model, "sleep")
    kernel.null.dies()
    kernel.null.calls.clear()
    kernel.null.starts()
    assert (program.state(model), program.state(adapter), kernel.null.calls) == ("cold", "cold", [])
    info = program.call("stat_object", handle=model)
    assert (info["health"], info["bytes"], info["fields"]["pinned"]) == ("ok", 0, True)
    (reason,) = info["reasons"]
    assert reason["code"] == "model.cold" and "killed by SIGKILL while it slept" in reason["text"]
    assert reason in [msgspec.to_builtins(each) for each in kernel.kernel.decisions.of(info["id"])]
    number = program.start(adapter, "x")
    kernel.null.release("submit")
    assert program.wait(number).error is None and (program.state(model), program.state(adapter)) == ("awake", "awake")


def test_what_was_falling_asleep_is_cold_too_unless_somebody_waits_for_it(
    kernel: Inside, program: Program, model: int
) -> None:
    other = program.load("other")
    kernel.null.holds.add("sleep")
    numbers = [control(program, each, "sleep") for each in (model, other)]
    waiting = program.start(other, "x")
    kernel.null.dies()
    assert all(isinstance(program.wait(number).error, PeerGone) for number in numbers)
    assert (program.state(model), program.state(other)) == ("cold", "lost")
    kernel.null.starts()
    kernel.null.release("submit")
    assert program.wait(waiting).error is None and program.state(model) == "cold"


def test_what_was_awake_goes_before_what_slept(kernel: Inside, program: Program, model: int) -> None:
    """Both do not fit: what slept does not drive out what is wanted, and the ledger has the rows of one."""
    kernel.null.answers.update(plan=PlanRows(rows=rows(MEMORY)), load=loaded(MEMORY), wake=loaded(MEMORY))
    large = program.load("large")
    assert (program.state(model), program.state(large)) == ("asleep", "awake")
    kernel.null.dies()
    kernel.null.starts()
    assert (program.state(model), program.state(large)) == ("cold", "awake")
    assert [row.ledger for row in kernel.kernel.ledger.rows("null0")] == [MEMORY]
    assert kernel.null.names()[-2:] == ["plan", "load"]


def test_requests_wait_for_the_device_to_return(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.dies()
    number = program.start(model, "x")
    assert not program.done(number)
    kernel.null.starts()
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_a_device_that_gives_up_ends_what_waits(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.dies()
    number = program.start(model, "x")
    kernel.null.starts()
    other = program.load("other")
    waiting = [program.start(other, "y") for _ in range(3)]
    kernel.null.release("submit")
    program.wait(number)
    kernel.null.dies(DriverState.FAILED)
    assert all(isinstance(program.wait(n).error, (DriverFailed, PeerGone)) for n in waiting)


def test_a_model_that_is_lost_while_it_wakes_stays_lost(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    number = control(program, model, "wake")
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone) and program.state(model) == "lost"
    kernel.null.starts()
    assert program.state(model) == "awake"


def test_a_device_that_ends_while_a_wake_is_planned_leaves_the_model_lost(
    kernel: Inside, program: Program, model: int
) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("plan")
    number = control(program, model, "wake")
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone) and program.state(model) == "lost"


def test_a_request_that_waits_for_a_lost_wake_runs_after_the_next_start(
    kernel: Inside, program: Program, model: int
) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    number = program.start(model, "x")
    kernel.null.dies()
    assert not program.done(number)
    kernel.null.starts()
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_waiting_requests_end_with_their_model(kernel: Inside, program: Program, model: int) -> None:
    running = [program.start(model, "x") for _ in range(2)]
    waiting = program.start(model, "y")
    program.call("unload_model", model=model, force=True)
    error = program.wait(waiting).error
    assert isinstance(error, Cancelled) and "unloaded" in str(error)
    for number in running:
        kernel.null.release("submit")
        program.wait(number)


def test_a_model_of_a_lost_device_is_unloaded_without_asking_it(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.dies()
    assert program.call("unload_model", model=model)["bytes"] == 0
    kernel.null.starts()
    assert program.names("/proc/models") == []


def test_files_of_a_lost_file_system_need_no_release(kernel: Inside, program: Program, model: int) -> None:
    kernel.models.dies()
    program.call("unload_model", model=model)
    assert "release" not in kernel.models.names()


def test_a_model_that_ended_on_the_way_says_so(kernel: Inside, program: Program, model: int) -> None:
    models = kernel.kernel.models
    found = next(iter(models.by_id.values()))
    kernel.null.dies()
    with pytest.raises(Unavailable, match="restarting"):
        models.check(found)
    program.call("unload_model", model=model)
    with pytest.raises(NotFound, match="not loaded any more"):
        models.check(found)


def test_a_lost_model_that_finds_no_room_is_cold_until_it_is_wanted_and_there_is_room(
    kernel: Inside, program: Program, model: int
) -> None:
    kernel.null.dies()
    lease = program.send("alloc_gpu", device=program.grants["null0"], bytes=MEMORY)
    kernel.null.starts()
    info = program.call("stat_object", handle=model)
    assert (info["state"], info["health"]) == ("cold", "ok")
    (reason,) = info["reasons"]
    assert reason["code"] == "model.cold" and "1.0 KiB are needed" in reason["text"]
    refused = program.wait(program.start(model, "x")).error
    assert isinstance(refused, NoDeviceMemory) and program.state(model) == "cold"
    program.call("close_handle", handle=program.wait(lease).value["handle"])
    number = program.start(model, "x")
    kernel.null.release("submit")
    assert program.wait(number).error is None
    assert sum(row.ledger for row in kernel.kernel.ledger.rows("null0")) == 1024


def test_a_device_that_finds_no_room_and_ends_leaves_a_cold_model(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.holds.add("wake")
    program.start(model, "x")
    full = NoDeviceMemory("full", needed=2, free=1, evictable=0, by_whom="nobody")
    assert kernel.null.driver.link is not None
    kernel.null.driver.link.receive(error_frames(kernel.null.held["wake"].pop(), full))
    kernel.null.dies()
    assert program.state(model) == "cold"


def test_a_model_that_could_not_be_loaded_again_is_unloaded_though_its_driver_does_not_have_it(
    kernel: Inside, program: Program, model: int
) -> None:
    kernel.null.dies()
    kernel.null.answers["plan"] = BadModel("damaged")
    kernel.null.starts()
    assert program.state(model) == "failed"
    kernel.null.answers["unload"] = NotFound("model w-1 is not on null0")
    assert program.call("unload_model", model=model)["bytes"] == 0
    assert not kernel.kernel.models.by_id and "unload" in [name for name, _ in kernel.null.calls]


def test_a_failed_model_stays_failed_when_its_device_returns(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.answers["wake"] = BadModel("damaged")
    assert isinstance(program.control_error(model, "wake"), BadModel)
    kernel.null.dies()
    kernel.null.starts()
    assert program.state(model) == "failed"


def test_a_device_that_gives_up_leaves_the_others_alone(folder: Path) -> None:
    with inside(folder, drivers="null0,cpu0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny", device="cpu0")
        numbers = [program.start(model, "x") for _ in range(3)]
        kernel.null.dies(DriverState.FAILED)
        for number in numbers:
            kernel.hosts["cpu0"].release("submit")
            assert program.wait(number).error is None


def test_a_device_that_ends_while_the_files_are_looked_for_is_waited_for(kernel: Inside, program: Program) -> None:
    kernel.models.holds.add("locate")
    number = program.send("load_model", path="/models/tiny")
    kernel.null.dies()
    kernel.models.release("locate", located({"path": "/tiny"}))
    assert not program.done(number)
    kernel.null.starts()
    assert program.wait(number).error is None


def test_a_failed_model_is_loaded_when_its_device_is_back(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "sleep")
    kernel.null.answers["wake"] = BadModel("damaged")
    program.control_error(model, "wake")
    kernel.null.dies()
    number = program.start(model, "x")
    kernel.null.starts()
    kernel.null.release("submit")
    assert program.wait(number).error is None and "unload" in kernel.null.names()

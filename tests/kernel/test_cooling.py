"""Models leave memory when it is short."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from scripted import HOST_MEMORY, Inside, Program, inside, loaded

from llmos.kernel.cooling import LASTING
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadState, DeviceFault, NoDeviceMemory, PeerGone
from llmos.syscalls.types import LedgerRow

RESTS = HOST_MEMORY // 4


def host_row(size: int) -> LedgerRow:
    return LedgerRow(device="host", what="weights", owner="", allocator=size, driver=size)


def own_row(size: int) -> LedgerRow:
    return LedgerRow(device="null0", what="weights", owner="", predicted=size, allocator=size, driver=size)


def models(kernel: Inside, program: Program, count: int, size: int = 1024) -> list[int]:
    """So many models, of which each holds a quarter of the machine's memory when it sleeps."""
    kernel.null.answers.update(
        plan=PlanRows(rows=[own_row(size)]), load=loaded(size), wake=loaded(size), sleep=loaded(rows=[host_row(RESTS)])
    )
    return [program.load(f"m{index}") for index in range(count)]


def states(program: Program, found: list[int]) -> list[str]:
    return [program.state(model) for model in found]


def decided(kernel: Inside, about: str) -> list[str]:
    return [reason.code for reason in kernel.kernel.decisions.of(about)]


def test_who_falls_asleep_drives_out_who_sleeps_when_the_machine_is_full(kernel: Inside, program: Program) -> None:
    found = models(kernel, program, 4)
    for model in found[:3]:
        program.control(model, "sleep")
    assert states(program, found) == ["asleep", "asleep", "asleep", "awake"]
    program.control(found[0], "wake")
    program.control(found[0], "sleep")  # it is known now how much it holds; the reserve leaves room for three
    assert states(program, found[:3]) == ["asleep"] * 3
    program.control(found[3], "sleep")
    kernel.null.answers["sleep"] = loaded(rows=[host_row(1024)])
    assert sorted(states(program, found)) == ["asleep", "asleep", "asleep", "asleep"]
    assert kernel.kernel.ledger.excess("host") > 0
    kernel.advance(1.0)
    assert "cold" not in states(program, found)  # a moment of it is none
    for _ in range(LASTING):
        kernel.advance(1.0)
    assert sorted(states(program, found)) == ["asleep", "asleep", "asleep", "cold"]
    assert kernel.kernel.ledger.excess("host") == 0 and "model.evicted" in decided(kernel, "host")


def test_a_cold_model_is_loaded_from_its_files_by_the_next_request(kernel: Inside, program: Program) -> None:
    (model,) = models(kernel, program, 1)
    kernel.null.answers["sleep"] = loaded(rows=[host_row(HOST_MEMORY)])
    program.control(model, "sleep")
    for _ in range(LASTING):
        kernel.advance(1.0)
    assert program.state(model) == "cold" and program.call("stat_object", handle=model)["health"] == "ok"
    assert kernel.null.names()[-1] == "unload"
    number = program.start(model, "x")
    kernel.null.release("submit")
    assert program.wait(number).error is None and kernel.null.names()[-3:] == ["plan", "load", "submit"]
    assert program.state(model) == "awake" and kernel.kernel.ledger.held("nobody") == 0


def test_where_there_is_no_place_to_sleep_a_model_goes_cold_at_once(kernel: Inside, program: Program) -> None:
    found = models(kernel, program, 2)
    kernel.kernel.models.by_id[kernel.kernel.models.named("m0").id].resting = 2 * HOST_MEMORY  # type: ignore[union-attr]
    program.control(found[0], "sleep")
    assert states(program, found) == ["cold", "awake"] and "sleep" not in kernel.null.names()
    program.call("unload_model", model=found[0])
    assert kernel.null.names().count("unload") == 1 and len(kernel.kernel.models.by_id) == 1


def test_a_model_in_use_does_not_leave(kernel: Inside, program: Program) -> None:
    (model,) = models(kernel, program, 1)
    kernel.kernel.models.named("m0").resting = 2 * HOST_MEMORY  # type: ignore[union-attr]
    program.start(model, "x")
    assert isinstance(program.control_error(model, "sleep"), BadState)


def test_a_cold_model_is_not_lost_with_its_device(kernel: Inside, program: Program) -> None:
    (model,) = models(kernel, program, 1)
    kernel.kernel.models.named("m0").resting = 2 * HOST_MEMORY  # type: ignore[union-attr]
    program.control(model, "sleep")
    kernel.null.dies()
    assert program.state(model) == "cold"
    kernel.null.starts()
    assert program.state(model) == "cold"


def test_a_host_that_dies_while_a_model_leaves(kernel: Inside, program: Program) -> None:
    (model,) = models(kernel, program, 1)
    kernel.kernel.models.named("m0").resting = 2 * HOST_MEMORY  # type: ignore[union-attr]
    kernel.null.holds.add("unload")
    number = program.send("control_object", handle=model, action="sleep")
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone)
    kernel.null.holds.discard("unload")
    kernel.null.starts()
    started = program.start(model, "x")
    kernel.null.release("submit")
    assert program.wait(started).error is None


@pytest.mark.parametrize("ends", [True, False])
def test_a_model_that_does_not_leave_well_is_loaded_anew(kernel: Inside, program: Program, ends: bool) -> None:
    """Its host dies meanwhile, or fails to unload it: it goes by another id then, and its conversations are lost."""
    (model,) = models(kernel, program, 1)
    context = program.call("open_context", model=model)["handle"]
    kernel.kernel.models.named("m0").resting = 2 * HOST_MEMORY  # type: ignore[union-attr]
    kernel.null.holds.add("unload")
    number = program.send("control_object", handle=model, action="sleep")
    if ends:
        kernel.null.dies()
        kernel.null.holds.discard("unload")
        kernel.null.starts()
    else:
        kernel.null.release("unload", DeviceFault("broken"))
    assert program.wait(number).error is not None and program.state(context) == "lost"
    assert program.state(model) == "cold" and kernel.kernel.ledger.rows("null0") == []
    program.control(model, "wake")
    first, second = [body["id"] for name, body in kernel.null.calls if name == "load"]
    assert first != second


def test_a_request_that_came_while_a_model_left_with_its_host_is_answered_by_the_next_one(
    kernel: Inside, program: Program
) -> None:
    (model,) = models(kernel, program, 1)
    kernel.kernel.models.named("m0").resting = 2 * HOST_MEMORY  # type: ignore[union-attr]
    kernel.null.holds.add("unload")
    program.send("control_object", handle=model, action="sleep")
    number = program.start(model, "x")
    kernel.null.dies()
    kernel.null.holds.discard("unload")
    kernel.null.starts()
    assert program.state(model) == "awake" and not program.done(number)
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_a_model_that_waits_for_a_place_to_sleep_drives_out_one_and_not_one_a_second(
    kernel: Inside, program: Program
) -> None:
    found = models(kernel, program, 4)
    for model in found[:3]:
        program.control(model, "sleep")
    kernel.kernel.models.named("m3").resting = RESTS  # type: ignore[union-attr]
    kernel.null.holds.add("unload")
    program.control(found[3], "keep_alive", seconds=1)
    for _ in range(4):
        kernel.advance(1.0)
    assert kernel.null.names().count("unload") == 1
    asked = program.send("control_object", handle=found[3], action="sleep")
    kernel.null.release("unload")
    assert program.wait(asked).error is None and sorted(states(program, found)) == ["asleep"] * 3 + ["cold"]
    assert kernel.null.names().count("sleep") == 4 and states(program, found[3:]) == ["asleep"]


def test_what_leaves_with_the_death_of_another_host_has_made_room_too(folder: Path) -> None:
    with inside(folder, drivers="null0,cpu0,models") as kernel:
        program, cpu = kernel.program(), kernel.hosts["cpu0"]
        assert cpu.driver.facts is not None
        cpu.driver.facts = msgspec.structs.replace(cpu.driver.facts, pool="host", memory_bytes=HOST_MEMORY)
        kernel.kernel.observer.driver_ready(cpu.driver)
        found = models(kernel, program, 1)
        kernel.null.answers["sleep"] = loaded(rows=[host_row(RESTS * 2)])
        program.control(found[0], "sleep")
        large = HOST_MEMORY * 6 // 10
        cpu.answers.update(plan=PlanRows(rows=[own_row(large)]), load=loaded(large))
        kernel.null.holds.add("unload")
        number = program.send("load_model", path="/models/large", device=program.grants["cpu0"])
        assert kernel.null.names()[-1] == "unload" and not program.done(number)
        kernel.null.dies()
        assert program.wait(number).error is None and states(program, found) == ["cold"]


@pytest.fixture
def pooled(kernel: Inside) -> Inside:
    """The device takes from the machine's memory."""
    assert kernel.null.driver.facts is not None
    facts = msgspec.structs.replace(kernel.null.driver.facts, pool="host", memory_bytes=HOST_MEMORY)
    kernel.null.driver.facts = facts
    kernel.kernel.observer.driver_ready(kernel.null.driver)
    return kernel


def test_what_sleeps_makes_room_on_a_device_that_shares_the_memory(pooled: Inside, program: Program) -> None:
    found = models(pooled, program, 2, size=RESTS)
    for model in found:
        program.control(model, "sleep")
    assert pooled.kernel.ledger.free("null0") < HOST_MEMORY * 6 // 10
    pooled.null.answers["plan"] = PlanRows(rows=[own_row(HOST_MEMORY * 6 // 10)])
    program.load("large")
    assert sorted(states(program, found)) == ["asleep", "cold"]


def test_idle_models_make_room_for_other_programs(pooled: Inside, program: Program) -> None:
    found = models(pooled, program, 2, size=RESTS)
    pooled.null.answers["sleep"] = loaded(rows=[])
    busy = program.start(found[0], "x")
    pooled.machine.available = HOST_MEMORY // 10
    for _ in range(LASTING + 1):
        pooled.advance(1.0)
    assert states(program, found) == ["awake", "asleep"]
    assert "memory.excess" in decided(pooled, "null0")
    pooled.null.release("submit")
    program.wait(busy)
    for _ in range(LASTING + 1):
        pooled.advance(1.0)
    assert states(program, found) == ["asleep", "asleep"]


def test_a_device_that_cannot_sleep_is_told_of(pooled: Inside, program: Program) -> None:
    models(pooled, program, 1, size=RESTS)
    pooled.null.answers["sleep"] = BadState("no", state="awake")
    pooled.machine.available = 0
    for _ in range(LASTING + 1):
        pooled.advance(1.0)
    assert any("room could not be made" in record.text for record in pooled.kernel.journal.read())




def test_a_model_that_wakes_meanwhile_is_left(pooled: Inside, program: Program) -> None:
    found = models(pooled, program, 2, size=RESTS)
    for model in found:
        program.control(model, "sleep")
    pooled.null.answers["plan"] = PlanRows(rows=[own_row(HOST_MEMORY * 9 // 10)])
    pooled.null.holds |= {"unload", "wake"}
    number = program.send("load_model", path="/models/large")
    (second,) = [model for model in found if program.state(model) == "asleep"]
    pooled.kernel.models.by_id[program.call("stat_object", handle=second)["id"]].loading = pooled.kernel.runner.future()
    pooled.null.release("unload")
    assert program.state(second) == "asleep" and pooled.null.names().count("unload") == 1
    assert isinstance(program.wait(number).error, NoDeviceMemory)


def test_a_model_that_is_unloaded_while_another_falls_asleep_is_passed_over(pooled: Inside, program: Program) -> None:
    found = models(pooled, program, 2, size=RESTS)
    pooled.null.answers["sleep"] = loaded(rows=[])
    pooled.null.holds.add("sleep")
    pooled.machine.available = 0
    for _ in range(LASTING + 1):
        pooled.advance(1.0)
    (awake,) = [model for model in found if program.state(model) == "awake"]
    program.call("unload_model", model=awake)
    pooled.null.release("sleep")
    assert len(pooled.kernel.models.by_id) == 1 and pooled.null.names().count("sleep") == 1

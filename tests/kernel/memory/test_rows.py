"""Rows that a driver reports are taken to the device that they are of."""

from __future__ import annotations

from scripted import HOST_MEMORY, MEMORY, MODEL_BYTES, Inside, Program, loaded, rows

from llmos.kernel.memory.rows import size_device
from llmos.kernel.objects import DeviceObject
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.events import DeviceFacts, Memory, Overrun
from llmos.syscalls.types import LedgerRow


def host(size: int, owner: str = "", what: str = "weights") -> LedgerRow:
    return LedgerRow(device="host", what=what, owner=owner, predicted=size, allocator=size)


def held(kernel: Inside, device: str) -> dict[str, int]:
    return {row.what: row.ledger for row in kernel.kernel.ledger.rows(device) if row.owner}


def test_what_sleeps_in_the_machines_memory_is_counted_there(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.answers["sleep"] = loaded(rows=[*rows(10), host(700), host(50, what="kv")])
    program.control(model, "sleep")
    assert held(kernel, "null0") == {"weights": 10} and held(kernel, "host") == {"weights": 700, "kv": 50}
    program.control(model, "wake")
    assert held(kernel, "null0") == {"weights": MODEL_BYTES} and held(kernel, "host") == {}


def test_a_report_tells_of_both(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    name = kernel.null.last("load")["id"]
    program.load("two")
    other = kernel.null.last("load")["id"]
    report = [*rows(MODEL_BYTES, owner=name), host(300, name), host(20, "nobody"), host(9, other)]
    kernel.null.event(Memory(device="null0", rows=report))
    assert {row.owner: row.ledger for row in kernel.kernel.ledger.rows("host") if row.owner} == {name: 300, other: 9}
    own = LedgerRow(device="host", what="runtime", owner="null0", driver=30)
    kernel.null.event(Memory(device="null0", rows=[host(9, other), own]))
    assert kernel.kernel.ledger.free("null0") == MEMORY - 2 * MODEL_BYTES, "the machine's, not the device's"
    assert {row.owner: row.ledger for row in kernel.kernel.ledger.rows("host") if row.owner} == {other: 9, "null0": 30}
    kernel.null.event(Memory(device="null0", rows=[host(9, other)]))
    assert {row.owner: row.ledger for row in kernel.kernel.ledger.rows("host") if row.owner} == {other: 9}
    program.call("unload_model", model=one)
    assert kernel.kernel.ledger.free("null0") == MEMORY - MODEL_BYTES


def test_what_a_model_takes_less_than_its_plan_is_free_for_others(kernel: Inside, program: Program) -> None:
    """As of a model that is served without the pages that were planned for it."""
    plan, less = [*rows(MODEL_BYTES), *rows(MEMORY - MODEL_BYTES, "kv")], [*rows(MODEL_BYTES), *rows(16, "kv")]
    kernel.null.answers.update(plan=PlanRows(rows=plan), load=loaded(rows=less), wake=loaded(rows=less))
    model = program.load("tiny")
    assert held(kernel, "null0") == {"weights": MODEL_BYTES, "kv": 16}
    kernel.null.answers["sleep"] = loaded(rows=[])
    program.control(model, "sleep")
    program.control(model, "wake")
    assert held(kernel, "null0") == {"weights": MODEL_BYTES, "kv": 16}
    kernel.null.answers.update(plan=PlanRows(rows=rows()), load=loaded())
    other = program.load("other")
    assert (program.state(model), program.state(other)) == ("awake", "awake"), "nothing had to leave for it"


def test_who_waits_for_room_gets_what_a_model_does_not_take(kernel: Inside, program: Program) -> None:
    plan = [*rows(MODEL_BYTES), *rows(MEMORY - MODEL_BYTES, "kv")]
    kernel.null.answers.update(plan=PlanRows(rows=plan), load=loaded(rows=[*rows(MODEL_BYTES), *rows(16, "kv")]))
    kernel.null.holds.add("load")
    first = program.send("load_model", path="/models/first")
    kernel.null.answers["plan"] = PlanRows(rows=rows())
    second = program.send("load_model", path="/models/second")
    assert kernel.null.names().count("load") == 1, "it waits for room"
    kernel.null.release("load")
    assert program.done(first) and kernel.null.names().count("load") == 2
    kernel.null.release("load", loaded())
    assert program.done(second)


def test_what_was_learned_of_a_model_stays_promised(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.event(Overrun(model=kernel.null.last("load")["id"], what="weights", predicted=0, measured=40))
    program.call("unload_model", model=model)
    program.load("tiny")
    assert held(kernel, "null0") == {"weights": MODEL_BYTES + 40}


def test_a_driver_that_predicts_nothing_of_what_it_loaded_takes_its_plan(kernel: Inside, program: Program) -> None:
    kernel.null.answers["load"] = loaded(rows=[LedgerRow(device="null0", what="weights", owner="", allocator=5)])
    program.load("tiny")
    assert held(kernel, "null0") == {"weights": MODEL_BYTES}


def test_what_a_host_kept_is_gone_with_it(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.answers["sleep"] = loaded(rows=[host(700)])
    program.control(model, "sleep")
    kernel.null.dies()
    assert held(kernel, "host") == {}


def test_what_a_limit_keeps_from_a_device_of_a_pool_stays_with_the_pool(kernel: Inside) -> None:
    ledger, device = kernel.kernel.ledger, kernel.kernel.objects["device:null0"]
    assert isinstance(device, DeviceObject)
    facts = DeviceFacts(name="null0", kind="null", memory_bytes=HOST_MEMORY, pool="host")
    size_device(ledger, device, facts)
    free = ledger.free("host")
    device.limit = 1000
    size_device(ledger, device, facts)
    assert sorted(ledger.pool("null0")) == ["host", "null0"]
    assert (ledger.free("null0"), ledger.free("host")) == (1000, free)
    device.limit = 2 * HOST_MEMORY
    size_device(ledger, device, DeviceFacts(name="null0", kind="null", memory_bytes=MEMORY))
    assert ledger.free("null0") == MEMORY, "a limit above what there is, as of a smaller device that took its name"

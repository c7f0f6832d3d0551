"""Rows that a driver reports are taken to the device that they are of."""

from __future__ import annotations

from scripted import HOST_MEMORY, MEMORY, MODEL_BYTES, Inside, Program, loaded, rows

from llmos.kernel.memory.rows import size_device
from llmos.kernel.objects import DeviceObject
from llmos.syscalls.events import DeviceFacts, Memory
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

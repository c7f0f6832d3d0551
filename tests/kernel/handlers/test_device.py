"""Leases of device bytes and shared buffers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scripted import MEMORY, Inside, Program, inside, loaded, rows

from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import (
    BadHandle, BadState, Cancelled, NoDeviceMemory, NoResources, NotSupported, OverQuota, PeerGone, Unavailable,
)  # fmt: skip
from llmos.syscalls.types import LedgerRow


def lease(program: Program, size: int = 4096, **body: object) -> dict:
    value: dict = program.call("alloc_gpu", device=program.grants["null0"], bytes=size, **body)
    return value


def lease_error(program: Program, size: int = 4096, **body: object) -> object:
    return program.error("alloc_gpu", device=program.grants["null0"], bytes=size, **body)


def free(kernel: Inside) -> int:
    return kernel.kernel.ledger.free("null0")


def test_a_lease_keeps_its_bytes_until_it_is_closed(kernel: Inside, program: Program) -> None:
    found = lease(program)
    assert free(kernel) == MEMORY - 4096 and found["expires"] is None
    info = program.call("stat_object", handle=found["handle"])
    assert (info["bytes"], info["fields"]["device"]) == (4096, "null0")
    program.call("close_handle", handle=found["handle"])
    assert free(kernel) == MEMORY
    assert kernel.session(program).lease_bytes == 0


def test_a_lease_ends_by_itself(kernel: Inside, program: Program) -> None:
    with program.watching("lease") as events:
        found = lease(program, ttl_s=2.0)
        assert found["expires"] == pytest.approx(kernel.wall() + 2)
        kernel.advance(1.9)
        assert free(kernel) == MEMORY - 4096
        kernel.advance(0.2)
        program.quiet()
        assert events.chunks[0]["fields"] == {"state": "ended", "reason": "its time to live has passed"}
    assert free(kernel) == MEMORY
    assert isinstance(program.error("stat_object", handle=found["handle"]), BadHandle)


def test_a_closed_lease_is_not_ended_again_at_its_time(kernel: Inside, program: Program) -> None:
    found = lease(program, ttl_s=2.0)
    program.call("close_handle", handle=found["handle"])
    kernel.advance(3)
    assert free(kernel) == MEMORY and kernel.session(program).lease_bytes == 0


def test_a_lease_ends_with_its_session(kernel: Inside, program: Program) -> None:
    lease(program)
    program.call("close_handle", handle=program.handle)
    assert free(kernel) == MEMORY


def test_a_lease_survives_its_device(kernel: Inside, program: Program) -> None:
    lease(program)
    kernel.null.dies()
    kernel.null.starts()
    assert free(kernel) == MEMORY - 4096


def test_what_is_not_free_is_refused(program: Program) -> None:
    error = lease_error(program, MEMORY + 1)
    assert isinstance(error, NoDeviceMemory) and error.free == MEMORY


def test_models_that_nobody_uses_make_room_for_a_lease(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    found = lease(program, MEMORY)
    assert program.state(model) == "asleep" and free(kernel) == 0
    (why,) = program.call("stat_object", handle=model)["reasons"]
    assert why["code"] == "model.evicted"
    assert why["text"].startswith(f"it makes room for a lease of 1.0 MiB for {kernel.session(program).program!r}: ")
    told = [reason.code for reason in kernel.kernel.decisions.of(found["id"])]
    assert told == ["model.evicted", "memory.admitted"]
    program.call("close_handle", handle=found["handle"])
    program.control(model, "wake")
    assert free(kernel) == MEMORY - 1024


def test_what_is_pinned_or_busy_does_not_leave_for_a_lease(kernel: Inside, program: Program) -> None:
    pinned, busy = program.load("tiny"), program.load("other")
    program.control(pinned, "pin")
    number = program.start(busy, "x")
    error = lease_error(program, MEMORY - 1024)
    assert isinstance(error, NoDeviceMemory) and (error.evictable, error.free) == (0, MEMORY - 2048)
    assert [program.state(model) for model in (pinned, busy)] == ["awake", "awake"]
    assert free(kernel) == MEMORY - 2048 and kernel.session(program).lease_bytes == 0
    kernel.null.release("submit")
    program.wait(number)
    assert lease(program, MEMORY - 1024) and program.state(busy) == "asleep"


def test_a_lease_that_is_given_up_while_a_model_goes_to_sleep_leaves_nothing(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.holds.add("sleep")
    number = program.send("alloc_gpu", device=program.grants["null0"], bytes=MEMORY)
    program.cancel(number)
    assert isinstance(program.wait(number).error, Cancelled) and program.state(model) == "sleeping"
    kernel.null.release("sleep")
    assert program.state(model) == "asleep" and free(kernel) == MEMORY
    assert kernel.session(program).lease_bytes == 0


def test_a_device_that_ends_while_it_makes_room_gives_no_lease(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.holds.add("sleep")
    number = program.send("alloc_gpu", device=program.grants["null0"], bytes=MEMORY)
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone) and program.state(model) == "cold"
    kernel.null.starts()
    assert free(kernel) == MEMORY and kernel.session(program).lease_bytes == 0


def test_leases_that_wait_for_room_do_not_exceed_what_policy_allows(folder: Path) -> None:
    tenth = MEMORY // 10
    settings = f"[policy.uid.{os.getuid()}.limits]\ndevice_bytes = {12 * tenth}\n"
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        resting = [LedgerRow(device="host", what="weights", owner="", allocator=5 * tenth)]
        kernel.null.answers.update(
            plan=PlanRows(rows=rows(5 * tenth)), load=loaded(5 * tenth), sleep=loaded(rows=resting)
        )
        program.load("tiny")
        kernel.null.holds.add("sleep")
        numbers = [
            program.send("alloc_gpu", device=program.grants["null0"], bytes=size * tenth) for size in (6, 3)
        ]
        kernel.null.release("sleep")
        given, refused = (program.wait(number) for number in numbers)
        assert given.error is None and isinstance(refused.error, OverQuota)
        assert kernel.session(program).lease_bytes == 6 * tenth
        assert sum(row.ledger for row in kernel.kernel.ledger.rows("null0")) == 6 * tenth


def test_a_lease_that_is_being_shared_counts_for_what_policy_allows(folder: Path) -> None:
    tenth = MEMORY // 10
    settings = f"[policy.uid.{os.getuid()}.limits]\ndevice_bytes = {8 * tenth}\n"
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        kernel.null.holds.add("lease")
        number = program.send("alloc_gpu", device=program.grants["null0"], bytes=5 * tenth, share=True)
        error = lease_error(program, 4 * tenth)
        assert isinstance(error, OverQuota)
        kernel.null.release("lease", NotSupported("no", why="a script"))
        assert isinstance(program.wait(number).error, NotSupported)
        lease(program, 8 * tenth)
        assert isinstance(lease_error(program, 1), OverQuota), "counted once"


def test_the_sessions_share_is_its_limit(kernel: Inside, program: Program) -> None:
    program.control(program.handle, "limit", lease_bytes=8192)
    lease(program)
    lease(program)
    error = lease_error(program, 1)
    assert isinstance(error, OverQuota) and (error.what, error.limit) == ("lease_bytes", 8192)


def test_leases_that_wait_for_a_device_do_not_exceed_the_limit(kernel: Inside, program: Program) -> None:
    program.control(program.handle, "limit", lease_bytes=4096)
    kernel.null.dies()
    numbers = [program.send("alloc_gpu", device=program.grants["null0"], bytes=4096) for _ in range(2)]
    kernel.null.starts()
    answers = [program.wait(number) for number in numbers]
    assert answers[0].error is None and isinstance(answers[1].error, OverQuota)


def test_sharing_is_refused_where_the_driver_cannot(kernel: Inside, program: Program) -> None:
    error = lease_error(program, share=True)
    assert isinstance(error, NotSupported) and error.why == "a script"
    assert free(kernel) == MEMORY and kernel.session(program).lease_bytes == 0
    assert kernel.kernel.buffers.promised == 0


@pytest.fixture
def sharing(kernel: Inside) -> Inside:
    """The device makes files of leases."""

    def make(body: dict[str, Any]) -> dict[str, Any]:
        Path(body["path"]).write_bytes(bytes(body["bytes"]))
        return {"kind": "shm", "path": body["path"]}

    kernel.null.answers["lease"] = make
    return kernel


def test_a_shared_lease_is_a_file_until_it_ends(sharing: Inside, program: Program) -> None:
    found = lease(program, share=True)
    path = Path(found["mapping"])
    assert (found["kind"], found["share"], path.stat().st_size) == ("shm", True, 4096)
    assert sharing.kernel.buffers.present() == sharing.kernel.buffers.promised == 4096
    fields = program.call("stat_object", handle=found["handle"])["fields"]
    assert (fields["kind"], fields["path"]) == ("shm", str(path))
    program.call("close_handle", handle=found["handle"])
    assert not path.exists() and free(sharing) == MEMORY and sharing.kernel.buffers.promised == 0
    assert sharing.null.last("end_lease")["id"] == found["id"]


def test_a_shared_file_outlives_the_device_and_ends_with_its_time(sharing: Inside, program: Program) -> None:
    path = Path(lease(program, share=True, ttl_s=2.0)["mapping"])
    sharing.null.dies()
    assert path.exists() and free(sharing) == MEMORY - 4096
    sharing.advance(3)
    assert not path.exists() and free(sharing) == MEMORY


def test_what_the_device_itself_holds_ends_with_it(kernel: Inside, program: Program) -> None:
    kernel.null.answers["lease"] = {"kind": "cuda-ipc", "handle": b"\x01\xff"}
    plain, found = lease(program), lease(program, share=True)
    assert (found["kind"], found["mapping"], plain["kind"], plain["mapping"]) == ("cuda-ipc", "01ff", "reservation", "")
    kernel.null.dies()
    assert free(kernel) == MEMORY - 4096
    assert isinstance(program.error("stat_object", handle=found["handle"]), BadHandle)
    assert program.call("stat_object", handle=plain["handle"])["fields"]["kind"] == "reservation"


def test_a_device_that_dies_while_it_shares_keeps_nothing(kernel: Inside, program: Program) -> None:
    kernel.null.holds.add("lease")
    number = program.send("alloc_gpu", device=program.grants["null0"], bytes=4096, share=True, ttl_s=1.0)
    kernel.advance(2)
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone | Unavailable)
    assert free(kernel) == MEMORY and kernel.session(program).lease_bytes == 0
    assert program.call("list_objects", system=program.system, kind="lease") == []


def test_buffers_are_bytes_of_the_machine(kernel: Inside, program: Program) -> None:
    before = kernel.kernel.ledger.free("host")
    made = program.call("alloc_buffer", system=program.system, bytes=10_000)
    assert kernel.kernel.ledger.free("host") == before - 12_288
    assert [(row.what, row.owner) for row in kernel.kernel.ledger.rows("host") if row.what == "buffer"] == [
        ("buffer", program.session)
    ]
    program.call("close_handle", handle=made["handle"])
    assert kernel.kernel.ledger.free("host") == before - 12_288
    program.call("close_handle", handle=program.handle)
    assert kernel.kernel.ledger.free("host") == before


def test_a_buffer_needs_room_on_the_machine(kernel: Inside, program: Program) -> None:
    kernel.machine.available = 60 << 20
    kernel.kernel.memory.tick()
    left = kernel.kernel.ledger.free("host")
    error = program.error("alloc_buffer", system=program.system, bytes=left + 1)
    assert isinstance(error, NoResources) and error.limit == left and "other programs on host" in str(error)
    assert kernel.kernel.buffers.promised == 0 and kernel.kernel.ledger.free("host") == left


def test_a_stopped_device_leases_nothing(kernel: Inside, program: Program) -> None:
    program.control(program.driver("null0")["handle"], "stop")
    assert isinstance(lease_error(program), BadState)


def test_a_buffer_is_a_file_of_the_session(kernel: Inside, program: Program) -> None:
    made = program.call("alloc_buffer", system=program.system, bytes=100)
    assert Path(made["path"]).stat().st_size == 4096
    info = program.call("stat_object", handle=made["handle"])
    assert (info["bytes"], info["fields"]["path"]) == (100, made["path"])
    assert kernel.session(program).buffer_bytes == 4096
    program.call("close_handle", handle=made["handle"])
    assert kernel.session(program).buffer_bytes == 0
    assert program.call("list_objects", system=program.system, kind="buffer") == []


def test_a_sessions_buffers_have_a_limit(program: Program) -> None:
    program.control(program.handle, "limit", buffer_bytes=8192)
    program.call("alloc_buffer", system=program.system, bytes=4096)
    error = program.error("alloc_buffer", system=program.system, bytes=8192)
    assert isinstance(error, OverQuota) and error.what == "buffer_bytes"


def test_all_buffers_have_a_limit(folder: Path) -> None:
    with inside(folder, "[limits]\nbuffer_bytes = 8192\n", drivers="") as kernel:
        one, two = kernel.program(), kernel.program()
        one.call("alloc_buffer", system=one.system, bytes=8192)
        error = two.error("alloc_buffer", system=two.system, bytes=1)
        assert isinstance(error, NoResources) and error.limit == 8192

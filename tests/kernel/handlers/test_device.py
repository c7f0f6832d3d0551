"""Leases of device bytes and shared buffers."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import MEMORY, Inside, Program, inside

from llmos.syscalls.errors import BadHandle, BadState, NoDeviceMemory, NoResources, NotSupported, OverQuota


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


def test_sharing_is_refused(program: Program) -> None:
    assert isinstance(lease_error(program, share=True), NotSupported)


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

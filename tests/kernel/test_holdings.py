"""What sessions hold. Calls that make it: `handlers/test_device.py`; conversations: `handlers/test_inference.py`."""

from __future__ import annotations

from pathlib import Path

from scripted import MEMORY, Inside, Program, loaded

from llmos.syscalls.types import Right


def test_a_returned_buffer_is_used_again(kernel: Inside, program: Program) -> None:
    first = program.call("alloc_buffer", system=program.system, bytes=4096)
    program.call("close_handle", handle=first["handle"])
    assert program.call("alloc_buffer", system=program.system, bytes=4096)["path"] == first["path"]


def test_a_buffer_held_by_another_session_outlives_its_maker(kernel: Inside, program: Program) -> None:
    other = kernel.program()
    made = program.call("alloc_buffer", system=program.system, bytes=4096)
    held = program.call("grant_handle", handle=made["handle"], session=other.session, rights=list(Right))["handle"]
    program.call("close_handle", handle=program.handle)
    assert Path(made["path"]).exists()
    other.call("close_handle", handle=held)
    assert not Path(made["path"]).exists() and kernel.kernel.buffers.promised == 0


def test_leases_end_in_the_order_of_their_times(kernel: Inside, program: Program) -> None:
    for seconds in (3.0, 1.0, 2.0):
        program.call("alloc_gpu", device=program.grants["null0"], bytes=10, ttl_s=seconds)
    left = []
    for _ in range(4):
        left.append(MEMORY - kernel.kernel.ledger.free("null0"))
        kernel.advance(1)
    assert left == [30, 20, 10, 0]


def test_a_conversation_whose_device_died_is_dropped_without_asking_it(kernel: Inside, program: Program) -> None:
    context = program.call("open_context", model=program.load("tiny"))["handle"]
    kernel.null.dies()
    assert program.state(context) == "lost"
    program.call("close_handle", handle=context)
    kernel.null.starts()
    assert "drop_context" not in kernel.null.names()


def test_only_conversations_of_the_model_are_lost(kernel: Inside, program: Program) -> None:
    one, two = program.load("one"), program.load("two")
    first = program.call("open_context", model=one)["handle"]
    second = program.call("open_context", model=two)["handle"]
    program.control(one, "sleep")
    assert (program.state(first), program.state(second)) == ("lost", "open")


def test_conversations_that_the_driver_kept_go_on_after_sleep(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    one, two = (program.call("open_context", model=model) for _ in range(2))
    kernel.null.answers["sleep"] = loaded(rows=[], contexts=[two["id"]])
    program.control(model, "sleep")
    assert (program.state(one["handle"]), program.state(two["handle"])) == ("lost", "open")
    free = kernel.kernel.ledger.free("host")
    assert kernel.null.last("sleep")["host_bytes"] == free > 0

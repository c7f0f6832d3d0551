"""Handles: close, copy, give, revoke."""

from __future__ import annotations

import pytest
from scripted import Inside, Program, inside

from llmos.syscalls.errors import BadHandle, Denied, NotFound, OverQuota, PeerGone
from llmos.syscalls.types import Right


def limited(program: Program, kernel: Inside, **limits: int) -> None:
    program.control(program.handle, "limit", **limits)


def test_a_copy_has_the_rights_that_were_asked_for(program: Program) -> None:
    copy = program.call("dup_handle", handle=program.system, rights=["read"])
    assert copy["rights"] == ["read"]
    error = program.error("list_objects", system=copy["handle"], kind="task")
    assert isinstance(error, Denied) and error.missing == "list"


def test_a_copy_cannot_have_more_rights(program: Program) -> None:
    copy = program.call("dup_handle", handle=program.system, rights=["read", "dup"])["handle"]
    assert isinstance(program.error("dup_handle", handle=copy, rights=["manage"]), Denied)


def test_a_closed_handle_is_never_open_again(program: Program) -> None:
    copy = program.call("dup_handle", handle=program.system, rights=["read"])["handle"]
    program.call("close_handle", handle=copy)
    assert isinstance(program.error("stat_object", handle=copy), BadHandle)
    assert program.call("dup_handle", handle=program.system, rights=["read"])["handle"] > copy


def test_another_session_gets_a_handle_and_an_event(kernel: Inside, program: Program) -> None:
    other = kernel.program()
    with other.watching("handle") as events:
        given = program.call("grant_handle", handle=program.system, session=other.session, rights=["read"])
        other.quiet()
        assert events.chunks[0]["fields"]["handle"] == given["handle"]
    assert other.call("stat_object", handle=given["handle"])["rights"] == ["read"]
    assert program.call("revoke_handle", handle=program.system)["closed"] == 1
    assert isinstance(other.error("stat_object", handle=given["handle"]), BadHandle)


def test_a_session_that_is_not_there_gets_nothing(program: Program) -> None:
    error = program.error("grant_handle", handle=program.system, session="s-none", rights=["read"])
    assert isinstance(error, NotFound)


def test_giving_respects_the_receivers_limit(kernel: Inside, program: Program) -> None:
    other = kernel.program()
    limited(other, kernel, handles=kernel.kernel.handles.count(other.session))
    error = program.error("grant_handle", handle=program.system, session=other.session, rights=["read"])
    assert isinstance(error, OverQuota) and error.what == "handles"


MAKERS = ["alloc_buffer", "alloc_gpu", "open_file", "mount_fs", "spawn_program", "open_context"]


@pytest.mark.parametrize("call", MAKERS)
def test_what_finds_no_free_handle_leaves_nothing_behind(kernel: Inside, program: Program, call: str) -> None:
    model = program.load("tiny")
    program.call("dup_handle", handle=program.system, rights=["read"])
    limited(program, kernel, handles=kernel.kernel.handles.count(program.session))
    before, session = dict(kernel.kernel.objects), kernel.session(program)
    arguments = {
        "alloc_buffer": {"system": program.system, "bytes": 4096},
        "alloc_gpu": {"device": program.grants["null0"], "bytes": 4096},
        "open_file": {"path": "/home/x", "mode": "w"},
        "mount_fs": {"system": program.system, "path": "/extra", "filesystem": "files", "source": "/tmp"},
        "spawn_program": {"system": program.system, "argv": ["true"]},
        "open_context": {"model": model},
    }
    free = kernel.kernel.ledger.free("null0")
    error = program.error(call, **arguments[call])
    assert isinstance(error, OverQuota) and error.what == "handles"
    assert kernel.kernel.objects == before
    assert kernel.kernel.ledger.free("null0") == free
    assert (session.buffer_bytes, session.lease_bytes) == (0, 0)
    assert "/extra" not in [point.path for point in session.mounts.points()]
    if call == "open_file":
        assert kernel.files.last("close")["discard"]
    if call == "open_context":
        assert "drop_context" in kernel.null.names()


def test_closing_a_file_that_was_written_publishes_it(kernel: Inside, program: Program) -> None:
    file = program.call("open_file", path="/home/x", mode="w")["handle"]
    copy = program.call("dup_handle", handle=file, rights=list(Right))["handle"]
    program.call("close_handle", handle=copy)
    assert "close" not in kernel.files.names()
    program.call("close_handle", handle=file)
    assert not kernel.files.last("close")["discard"]


def test_closing_a_file_that_was_read_ends_it(kernel: Inside, program: Program) -> None:
    file = program.call("open_file", path="/home/x")["handle"]
    program.call("close_handle", handle=file)
    assert kernel.files.last("close")["discard"] is False
    assert program.call("list_objects", system=program.system, kind="file") == []


def test_closing_a_written_file_whose_driver_died_says_so(kernel: Inside, program: Program) -> None:
    file = program.call("open_file", path="/home/x", mode="w")["handle"]
    kernel.files.dies()
    assert isinstance(program.error("close_handle", handle=file), PeerGone)


def test_saying_goodbye_ends_the_session_after_the_answer(kernel: Inside, program: Program) -> None:
    program.call("close_handle", handle=program.handle)
    assert program.session not in kernel.kernel.sessions.by_id
    assert isinstance(program.error("stat_object", handle=program.system), Denied)


def test_the_last_holder_of_a_mount_unmounts_it_where_it_was(kernel: Inside, program: Program) -> None:
    other = kernel.program()
    mount = program.grants["/home"]
    given = program.call("grant_handle", handle=mount, session=other.session, rights=["read"])["handle"]
    program.call("close_handle", handle=mount)
    assert "home" in [name.strip("/") for name in program.names("/")]
    other.call("close_handle", handle=given)
    assert "home" not in program.names("/")
    assert "home" in other.names("/")


def test_a_closed_mount_can_be_mounted_again(kernel: Inside, program: Program) -> None:
    program.call("close_handle", handle=program.grants["/home"])
    assert "home" not in program.names("/")
    program.call("mount_fs", system=program.system, path="/home", filesystem="files", source="/tmp", mode="rw")
    assert "home" in program.names("/")


def test_a_session_may_be_given_away_and_its_copy_closed(kernel: Inside, program: Program) -> None:
    other = kernel.program()
    given = program.call("grant_handle", handle=program.handle, session=other.session, rights=["read"])["handle"]
    other.call("close_handle", handle=given)
    program.quiet()


def test_limits_of_the_session_can_only_fall(folder) -> None:  # type: ignore[no-untyped-def]
    with inside(folder, "[policy.default]\n") as kernel:
        program = kernel.program()
        limited(program, kernel, handles=50)
        error = program.control_error(program.handle, "limit", handles=60)
        assert "may only be lowered" in str(error)
        assert "may only be lowered" in str(program.control_error(program.handle, "limit", handles=0))
        limited(program, kernel, handles=40)

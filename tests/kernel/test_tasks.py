"""Programs that the kernel runs: what they start with, how they end. Real processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from scripted import Inside, Program, inside
from watching import Loop

from llmos.kernel import tasks
from llmos.kernel.session import Peer
from llmos.syscalls.errors import BadArgument, BadState, Denied, NotFound, OverQuota, ReadOnly

SLEEP = ["sleep", "600"]


def spawn(program: Program, argv: list[str], **body: object) -> dict:
    value: dict = program.call("spawn_program", system=program.system, argv=argv, **body)
    return value


def spawn_error(program: Program, argv: list[str], **body: object) -> object:
    return program.error("spawn_program", system=program.system, argv=argv, **body)


def ended(program: Program, task: dict) -> dict:
    value: dict = program.call("wait_task", task=task["handle"])
    return value


def child(live: Inside, task: dict, token: str = "") -> Program:
    """A connection of the program itself, resumed with its token."""
    session = next(s for s in live.kernel.sessions.by_id.values() if s.task == task["id"])
    if token:
        session.renew_token(token)
    connection = live.connect(session.peer)
    return connection.welcome(connection.call("hello", protocol=1, program="child", resume=token or "?"))


def test_a_program_knows_where_the_kernel_is_and_who_it_is(live: Inside) -> None:
    program = live.program()
    show = "from os import environ as e; print(e['LLMOS_TASK'], e['LLMOS_RUNTIME_DIR'], len(e['LLMOS_SESSION']))"
    task = spawn(program, [sys.executable, "-c", show])
    words = ended(program, task)["value"]["output"].split()
    assert words == [task["id"], str(live.config.paths.runtime), "32"]


def test_it_starts_with_exactly_what_it_was_given(live: Inside) -> None:
    program = live.program()
    grants = [{"handle": program.system, "rights": ["list", "read"]}, {"handle": program.handle}]
    task = spawn(program, SLEEP, grants=grants, mounts=[{"path": "/models"}])
    own = child(live, task, "token")
    assert sorted(own.grants) == ["sleep", "system", "test"]
    assert own.names("/") == ["models"]
    assert own.call("list_objects", system=own.system, kind="driver") == []
    assert isinstance(own.error("spawn_program", system=own.system, argv=["true"]), Denied)
    assert set(own.call("stat_object", handle=own.system)["rights"]) == {"list", "read"}
    program.call("cancel_task", task=task["handle"])


def test_its_objects_are_its_own(live: Inside) -> None:
    program = live.program()
    task = spawn(program, SLEEP, grants=[{"handle": program.system}])
    own = child(live, task, "token")
    buffer = own.call("alloc_buffer", system=own.system, bytes=1)
    assert "manage" in own.call("stat_object", handle=buffer["handle"])["rights"]
    assert own.call("list_objects", system=own.system, kind="buffer") == []
    program.call("cancel_task", task=task["handle"])


def test_its_session_waits_for_it_and_ends_with_it(live: Inside) -> None:
    program = live.program()
    task = spawn(program, SLEEP)
    info = program.call("stat_object", handle=task["handle"])
    assert info["fields"]["session"] in live.kernel.sessions.by_id and info["fields"]["pid"] > 0
    own = child(live, task, "token")
    live.kernel.sessions.lost_route(own.wire.route)
    live.kernel.sessions._not_resumed(live.kernel.sessions.by_id[own.session], 1, 0.0)
    assert own.session in live.kernel.sessions.by_id
    program.call("cancel_task", task=task["handle"])
    assert live.loop is not None
    live.loop.until(lambda: own.session not in live.kernel.sessions.by_id)


def test_its_limits_are_never_wider_than_its_parents(live: Inside) -> None:
    program = live.program()
    program.control(program.handle, "limit", buffer_bytes=4096, handles=100)
    task = spawn(program, SLEEP, limits={"buffer_bytes": 8192, "handles": 50, "sessions": 3})
    session = next(s for s in live.kernel.sessions.by_id.values() if s.task)
    assert (session.limits.buffer_bytes, session.limits.handles, session.limits.sessions) == (4096, 50, 3)
    program.call("cancel_task", task=task["handle"])


def test_what_it_may_not_get_is_refused(live: Inside) -> None:
    program = live.program()
    copy = program.call("dup_handle", handle=program.system, rights=["read", "grant"])["handle"]
    error = spawn_error(program, SLEEP, grants=[{"handle": copy, "rights": ["manage"]}])
    assert isinstance(error, Denied) and error.missing == "manage"
    no_grant = program.call("dup_handle", handle=program.system, rights=["read"])["handle"]
    assert isinstance(spawn_error(program, SLEEP, grants=[{"handle": no_grant}]), Denied)
    assert isinstance(spawn_error(program, SLEEP, mounts=[{"path": "/proc", "mode": "rw"}]), ReadOnly)
    assert program.names("/proc/tasks") == []


def test_a_program_that_is_not_there_is_not_found(live: Inside) -> None:
    assert isinstance(spawn_error(live.program(), ["no-such-program"]), NotFound)


def test_a_program_that_cannot_be_started_is_an_error_and_nothing_more(live: Inside, folder: Path) -> None:
    program = live.program()
    broken = folder / "broken"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o700)
    for argv in ([str(broken)], ["true", "a\0b"], ["true", "x" * (1 << 18)]):
        error = spawn_error(program, argv)
        assert isinstance(error, BadArgument) and "cannot be started" in str(error)
    assert program.names("/proc/tasks") == []
    assert len(live.kernel.sessions.by_id) == 1


def test_another_user_starts_nothing(folder: Path) -> None:
    with inside(folder, '[policy.default.handles]\nsystem = "all"\n', drivers="") as kernel:
        stranger = kernel.program(Peer(12345, 12345, os.getpid()))
        error = spawn_error(stranger, SLEEP)
        assert isinstance(error, Denied) and error.missing == "uid"


def test_a_program_is_paused_resumed_and_made_less_important(live: Inside) -> None:
    program = live.program()
    task = spawn(program, SLEEP)
    handle, pid = task["handle"], program.call("stat_object", handle=task["handle"])["fields"]["pid"]

    def process_state() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    assert live.loop is not None
    assert isinstance(program.control_error(handle, "resume"), BadState)
    with program.watching("task") as events:
        assert program.control(handle, "pause")["state"] == "paused"
        live.loop.until(lambda: process_state() == "T")
        assert isinstance(program.control_error(handle, "pause"), BadState)
        assert program.control(handle, "resume")["state"] == "running"
        live.loop.until(lambda: process_state() == "S")
        assert [event["fields"]["state"] for event in events.chunks] == ["paused", "running"]
    program.control(handle, "priority", nice=7)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    program.control(handle, "pause")
    assert program.call("cancel_task", task=handle)["state"] == "cancelled"
    assert isinstance(program.control_error(handle, "priority", nice=1), BadState)


def test_it_cannot_open_a_session_of_its_own(live: Inside) -> None:
    program = live.program()
    task = spawn(program, SLEEP)
    peer = next(s.peer for s in live.kernel.sessions.by_id.values() if s.task)
    error = live.connect(peer).error("hello", protocol=1, program="child")
    assert isinstance(error, Denied) and "LLMOS_SESSION" in str(error)
    program.call("cancel_task", task=task["handle"])


def test_a_priority_that_the_system_refuses_is_denied(live: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: int) -> None:
        raise PermissionError

    program = live.program()
    task = spawn(program, SLEEP)
    monkeypatch.setattr(os, "setpriority", refuse)
    error = program.control_error(task["handle"], "priority", nice=-5)
    assert isinstance(error, Denied) and "without root" in str(error)
    program.call("cancel_task", task=task["handle"])


def test_programs_of_one_user_are_counted(live: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_KEEP", 1)
    program = live.program()
    first = spawn(program, ["true"])
    ended(program, first)
    second = spawn(program, SLEEP)
    error = spawn_error(program, SLEEP)
    assert isinstance(error, OverQuota) and error.what == "programs"
    program.call("cancel_task", task=second["handle"])
    assert program.names("/proc/tasks") == [second["id"]]


def test_the_end_of_the_kernel_ends_programs(folder: Path) -> None:
    loop = Loop()
    with inside(folder, loop=loop, drivers="") as live:
        program = live.program()
        paused, done = spawn(program, SLEEP), spawn(program, ["true"])
        ended(program, done)
        program.control(paused["handle"], "pause")
        assert not live.kernel.idle
        live.kernel.drain()
        loop.until(lambda: live.kernel.idle)
        assert program.call("wait_task", task=paused["handle"])["state"] == "cancelled"
    loop.close()


def test_what_is_left_at_the_end_is_killed(folder: Path) -> None:
    loop = Loop()
    with inside(folder, loop=loop, drivers="") as live:
        program = live.program()
        spawn(program, SLEEP)
        ended(program, spawn(program, ["true"]))
    assert loop.watched == 0
    loop.close()

"""Sessions: opened, resumed, ended; what policy gives them and what ends with them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from scripted import Inside, Program, inside
from watching import Loop

from llmos.kernel.policy import Policies
from llmos.kernel.session import Peer
from llmos.syscalls.errors import Cancelled, Denied, NoResources, NotSupported, OverQuota
from llmos.syscalls.types import Right

STRANGER = Peer(12345, 12345, os.getpid())


def hello_error(kernel: Inside, peer: Peer | None = None, **body: object) -> object:
    return kernel.connect(peer).error("hello", **{"protocol": 1, "program": "test", **body})


def test_hello_gives_the_system_devices_and_mounts(kernel: Inside, program: Program) -> None:
    assert {"system", "null0", "/models", "/home", "/dev", "/proc", "/sys", "test"} == set(program.grants)
    assert program.grants["system"] == program.system and program.grants["test"] == program.handle
    info = program.call("stat_object", handle=program.handle)
    assert info["fields"]["pid"] == os.getpid() and info["fields"]["mounts"]["/proc"] == "kernel"


def test_an_old_protocol_is_refused(kernel: Inside) -> None:
    assert isinstance(hello_error(kernel, protocol=0), NotSupported)


def test_a_user_without_policy_is_refused(kernel: Inside) -> None:
    error = hello_error(kernel, STRANGER)
    assert isinstance(error, Denied) and error.missing == "policy"


def test_a_process_that_has_ended_is_refused(kernel: Inside) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert isinstance(hello_error(kernel, Peer(os.getuid(), os.getgid(), gone.pid)), Denied)
    assert kernel.kernel.sessions.by_id == {}


def test_a_kernel_that_stops_opens_nothing(kernel: Inside, program: Program) -> None:
    kernel.kernel.draining = True
    assert isinstance(hello_error(kernel), NoResources)
    again = kernel.connect()
    again.welcome(again.call("hello", protocol=1, program="test", resume=program.token))


def test_sessions_are_limited_in_all_and_by_user(folder: Path) -> None:
    settings = "[limits]\nsessions = 3\n[policy.default.limits]\nsessions = 1\n"
    with inside(folder, settings, drivers="") as kernel:
        kernel.program(STRANGER)
        error = hello_error(kernel, STRANGER)
        assert isinstance(error, OverQuota) and error.what == "sessions"
        kernel.program()
        kernel.program(Peer(12346, 1, os.getpid()))
        error = hello_error(kernel)
        assert isinstance(error, NoResources) and error.limit == 3


def test_a_session_whose_first_handles_exceed_its_limit_is_not_opened(folder: Path) -> None:
    with inside(folder, "[limits]\nhandles = 3\n", drivers="") as kernel:
        assert isinstance(hello_error(kernel), OverQuota)
        assert kernel.kernel.sessions.by_id == {} and list(kernel.kernel.objects) == ["system"]
        assert kernel.watcher.callbacks == {}


def test_a_second_hello_on_a_connection_ends_the_first_session(kernel: Inside, program: Program) -> None:
    first = program.session
    program.hello()
    assert list(kernel.kernel.sessions.by_id) == [program.session] != [first]


# ---- resume


def test_a_session_is_resumed_with_all_it_had(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    number = program.start(model, "x")
    again = kernel.connect()
    again.welcome(again.call("hello", protocol=1, program="test", resume=program.token))
    assert again.session == program.session and again.token != program.token
    assert again.grants["tiny"] == model
    kernel.null.release("submit")
    again.answers[number] = program.answers[number]
    assert again.wait(number).error is None
    assert isinstance(program.error("stat_object", handle=model), Denied)


def test_a_token_works_once_and_for_its_process_only(kernel: Inside, program: Program) -> None:
    kernel.connect().call("hello", protocol=1, program="test", resume=program.token)
    assert isinstance(hello_error(kernel, resume=program.token), Denied)
    stranger = Peer(os.getuid(), os.getgid(), 1)
    assert isinstance(hello_error(kernel, stranger, resume=program.token), Denied)


def test_a_lost_connection_is_waited_for(kernel: Inside, program: Program) -> None:
    session = kernel.session(program)
    kernel.cut.add(program.wire.route)
    session.send([b""])
    kernel.kernel.sessions.lost_route(program.wire.route)
    kernel.kernel.sessions.lost_route(program.wire.route)
    kernel.advance(9)
    assert session.id in kernel.kernel.sessions.by_id
    kernel.advance(2)
    assert session.id not in kernel.kernel.sessions.by_id


def test_each_loss_has_its_own_time(kernel: Inside, program: Program) -> None:
    kernel.kernel.sessions.lost_route(program.wire.route)
    kernel.advance(9)
    again = kernel.connect()
    again.welcome(again.call("hello", protocol=1, program="test", resume=program.token))
    kernel.kernel.sessions.lost_route(again.wire.route)
    kernel.advance(9)
    assert program.session in kernel.kernel.sessions.by_id
    kernel.advance(2)
    assert program.session not in kernel.kernel.sessions.by_id


def test_a_resumed_session_stays(kernel: Inside, program: Program) -> None:
    kernel.kernel.sessions.lost_route(program.wire.route)
    again = kernel.connect()
    again.welcome(again.call("hello", protocol=1, program="test", resume=program.token))
    kernel.advance(30)
    assert program.session in kernel.kernel.sessions.by_id


def test_idle_connections_get_a_beat_now_and_then(kernel: Inside, program: Program) -> None:
    kernel.advance(20)
    program.drain()
    beats = len(program.beats)
    kernel.advance(2)
    program.drain()
    assert len(program.beats) == beats == 1
    kernel.advance(20)
    program.drain()
    assert len(program.beats) == 2


# ---- the end


def test_what_only_a_session_held_ends_with_it(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    program.call("open_context", model=model)
    program.call("open_file", path="/home/x", mode="w")
    path = program.call("alloc_buffer", system=program.system, bytes=10)["path"]
    before = program.call("alloc_gpu", device=program.grants["null0"], bytes=10)["id"]
    other = kernel.program()
    program.call("close_handle", handle=program.handle)
    assert kernel.files.last("close")["discard"] and "drop_context" in kernel.null.names()
    assert not Path(path).exists() and before not in kernel.kernel.objects
    assert other.names("/proc/sessions") == [other.session]
    assert len(other.names("/proc/models")) == 1


def test_requests_are_cancelled_with_their_session(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    running = [program.start(model, "x", call_key=key) for key in ("a", "b")]
    joined = program.start(model, "x", call_key="a")
    waiting = program.start(model, "y")
    kernel.kernel.sessions.close(kernel.session(program), "test")
    kernel.settle()
    assert kernel.null.names().count("cancel") == 2
    assert len(kernel.kernel.requests) == 2
    kernel.null.release("submit")
    kernel.null.release("submit")
    assert kernel.kernel.requests == {}
    assert not program.done(waiting) and not program.done(joined) and not program.done(running[0])


def test_the_end_of_a_process_ends_its_sessions(folder: Path) -> None:
    loop = Loop()
    with inside(folder, loop=loop, drivers="") as live:
        waits = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        peer = Peer(os.getuid(), os.getgid(), waits.pid)
        live.program(peer)
        live.program(peer)
        mine = live.program()
        assert len(live.kernel.sessions.by_id) == 3
        waits.communicate()
        loop.until(lambda: len(live.kernel.sessions.by_id) == 1)
        mine.quiet()
    loop.close()


def test_a_session_is_closed_once(kernel: Inside, program: Program) -> None:
    session = kernel.session(program)
    kernel.kernel.sessions.close(session, "test")
    kernel.kernel.sessions.close(session, "test")
    assert kernel.kernel.sessions.by_id == {}


# ---- rights by policy

POLICY = """
[policy.default.handles]
system = ["list", "read", "create"]
device = ["read", "create"]
driver = "all"
[policy.default.mounts."/models"]
filesystem = "models"
source = "/srv/models"
"""


@pytest.fixture
def shared(folder: Path):  # type: ignore[no-untyped-def]
    with inside(folder, POLICY, drivers="null0,models") as kernel:
        yield kernel


def listed(program: Program, kind: str) -> list[dict]:
    found: list[dict] = program.call("list_objects", system=program.system, kind=kind)
    return found


def test_another_users_share_is_narrowed_on_what_is_not_its_own(shared: Inside) -> None:
    owner, stranger = shared.program(), shared.program(STRANGER)
    owner.load("tiny")
    model = listed(stranger, "model")[0]
    assert set(model["rights"]) == set(Right) - {Right.MANAGE, Right.WRITE}
    assert listed(stranger, "session")[0]["id"] == stranger.session and len(listed(stranger, "session")) == 1
    assert {o["id"] for o in listed(owner, "session")} == {owner.session, stranger.session}
    assert set(listed(stranger, "driver")[0]["rights"]) == set(Right)
    mine = stranger.call("alloc_gpu", device=stranger.grants["null0"], bytes=1)
    assert set(stranger.call("stat_object", handle=mine["handle"])["rights"]) == set(Right)


def test_a_tenant_sees_its_own_share_and_its_user_sees_all_of_them(shared: Inside) -> None:
    user = shared.program(STRANGER)
    one, two = (shared.program(STRANGER, tenant=tenant) for tenant in "ab")
    lease = one.call("alloc_gpu", device=one.grants["null0"], bytes=1)["id"]
    assert [o["id"] for o in listed(one, "lease")] == [o["id"] for o in listed(user, "lease")] == [lease]
    assert listed(two, "lease") == []


def test_a_model_joined_by_a_user_without_rights_to_it_can_be_used(shared: Inside) -> None:
    shared.kernel.config.policies.default.handles["model"] = []  # type: ignore[union-attr, index]
    stranger = shared.program(STRANGER)
    model = stranger.load("tiny")
    assert set(stranger.call("stat_object", handle=model)["rights"]) == set(Right)
    assert stranger.load("tiny") == model


def test_a_user_who_left_the_policy_gets_nothing_new(shared: Inside) -> None:
    stranger = shared.program(STRANGER)
    shared.kernel.config = msgspec.structs.replace(shared.kernel.config, policies=Policies())
    assert listed(stranger, "driver") == []


def test_open_handles_of_a_session_are_counted(kernel: Inside, program: Program) -> None:
    count = kernel.kernel.handles.count(program.session)
    program.control(program.handle, "limit", handles=count)
    error = program.error("dup_handle", handle=program.system, rights=["read"])
    assert isinstance(error, OverQuota) and error.limit == count
    assert isinstance(program.error("list_objects", system=program.system, kind="driver"), OverQuota)


def test_what_waits_at_the_end_is_answered(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system)
    kernel.kernel.end_requests()
    assert isinstance(program.wait(number).error, Cancelled)


def test_without_a_descriptor_for_its_process_no_session_is_opened(
    kernel: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    error = hello_error(kernel)
    assert isinstance(error, NoResources) and error.what == "descriptors"

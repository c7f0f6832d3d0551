"""What a handle allows, between two processes: granted, narrowed, revoked; and programs with exactly what they got."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import BadHandle, Denied, NotFound, ReadOnly, WrongKind
from llmos.syscalls.types import Right
from system.footprint import Footprint
from system.kernel_process import KernelProcess, eventually, watched
from system.puppet import Puppet, puppet
from system.raw_client import RawClient

PROGRAM = Path(__file__).with_name("program.py")
TELLER = ("env", f"PYTHONPATH={PROGRAM.parent.parent}", sys.executable, "-P", str(PROGRAM))


@pytest.fixture(autouse=True)
def nothing_kept(footprint: Footprint) -> None:
    """Whatever was granted, nothing is held afterwards."""


@pytest.fixture
def other(shared_kernel: KernelProcess) -> Iterator[Puppet]:
    """Another program."""
    with puppet(shared_kernel.socket) as other:
        yield other


@pytest.fixture
def model(shared: RawClient) -> Iterator[int]:
    model = shared.load("null")
    yield model
    shared.call("unload_model", model=model, force=True)


def infer(other: Puppet, model: int) -> str:
    answer = other.call("infer", model=model, input={"type": "text", "text": "hello"})
    return str(answer["choices"][0]["text"])


# ---- between two processes


def test_a_handle_means_nothing_in_another_session(shared: RawClient, other: Puppet, model: int) -> None:
    other.hello()
    for number in range(model, model + 50):
        with pytest.raises(BadHandle):
            other.call("infer", model=number, input={"type": "text", "text": "x"})


def test_a_granted_handle_works_with_the_rights_given(shared: RawClient, other: Puppet, model: int) -> None:
    session = other.hello()
    granted = shared.call("grant_handle", handle=model, session=session.session, rights=["run"])["handle"]
    assert infer(other, granted) == "hello"
    for call in ("stat_object", "unload_model", "dup_handle", "grant_handle"):
        arguments = {"stat_object": {"handle": granted}, "unload_model": {"model": granted},
                     "dup_handle": {"handle": granted, "rights": ["run"]},
                     "grant_handle": {"handle": granted, "session": shared.session, "rights": ["run"]}}  # fmt: skip
        with pytest.raises(Denied):
            other.call(call, **arguments[call])


def test_rights_only_narrow(shared: RawClient, other: Puppet, model: int) -> None:
    session = other.hello()
    narrow = shared.call("dup_handle", handle=model, rights=["run", "grant", "dup"])["handle"]
    for call in ("dup_handle", "grant_handle"):
        target = {"session": session.session} if call == "grant_handle" else {}
        error = shared.error(call, handle=narrow, rights=["run", "manage"], **target)
        assert isinstance(error, Denied)
        assert error.missing == "manage"
    shared.call("close_handle", handle=narrow)


def test_revoke_reaches_everything_derived_in_any_session(shared: RawClient, other: Puppet, model: int) -> None:
    session = other.hello()
    middle = shared.call("dup_handle", handle=model, rights=["run", "grant", "dup"])["handle"]
    theirs = shared.call("grant_handle", handle=middle, session=session.session, rights=["run", "dup"])["handle"]
    copy = other.call("dup_handle", handle=theirs, rights=["run"])["handle"]
    assert infer(other, copy) == "hello"
    assert shared.call("revoke_handle", handle=middle)["closed"] == 2
    for handle in (theirs, copy):
        with pytest.raises(BadHandle):
            infer(other, handle)
    assert shared.infer(middle, "mine")["choices"][0]["text"] == "mine"
    shared.call("close_handle", handle=middle)


def test_a_request_that_runs_ends_although_its_handle_was_revoked(
    shared: RawClient, other: Puppet, model: int
) -> None:
    session = other.hello()
    theirs = shared.call("grant_handle", handle=model, session=session.session, rights=["run"])["handle"]
    number = other.do("send", "infer", model=theirs, input={"type": "text", "text": "!slow 20; ends"})
    other.do("quiet")
    shared.call("revoke_handle", handle=model)
    assert other.do("outcome", number)["body"]["value"]["choices"][0]["text"] == "ends"


def test_a_lease_lives_as_long_as_somebody_holds_it(
    shared_kernel: KernelProcess, shared: RawClient, other: Puppet
) -> None:
    session = other.hello()
    lease = other.call("alloc_gpu", device=session.grants["null0"], bytes=1 << 20)
    grant = other.call("grant_handle", handle=lease["handle"], session=shared.session, rights=["read"])
    other.kill()
    eventually(shared_kernel, lambda: len(shared.names("/proc/sessions")) == 2, lambda: shared.names("/proc/sessions"))
    assert shared.names("/proc/leases") == [lease["id"]]
    shared.call("close_handle", handle=grant["handle"])
    assert shared.names("/proc/leases") == []


def test_a_grant_to_nobody_is_not_found(shared: RawClient, model: int) -> None:
    assert isinstance(shared.error("grant_handle", handle=model, session="s-none-1", rights=[]), NotFound)


def test_a_closed_handle_is_closed(shared: RawClient, model: int) -> None:
    copy = shared.call("dup_handle", handle=model, rights=["read"])["handle"]
    shared.call("close_handle", handle=copy)
    assert isinstance(shared.error("close_handle", handle=copy), BadHandle)
    again = shared.call("dup_handle", handle=model, rights=["read"])["handle"]
    assert again != copy
    shared.call("close_handle", handle=again)


def test_a_handle_of_another_kind_is_named(shared: RawClient, model: int) -> None:
    error = shared.error("infer", model=shared.system, input={"type": "text", "text": "x"})
    assert isinstance(error, WrongKind)
    assert (error.want, error.got) == ("model", "system")


# ---- programs


def spawned(shared: RawClient, *argv: str, **body: object) -> dict[str, object]:
    """Run a program to its end; its result."""
    task = shared.call("spawn_program", system=shared.system, argv=list(argv), **body)["handle"]
    result: dict[str, object] = shared.call("wait_task", task=task)
    return result


def test_a_program_has_exactly_what_it_was_given(shared: RawClient, model: int) -> None:
    result = spawned(
        shared, *TELLER, "one", "two",
        grants=[{"handle": model, "rights": ["run", "read"]}, {"handle": shared.system, "rights": ["read"]}],
        mounts=[{"path": "/models", "mode": "ro"}],
    )  # fmt: skip
    told = json.loads(result["value"]["output"])  # type: ignore[index]
    own_session = told["grants"].pop("env")
    assert set(own_session) == set(Right)
    assert told["grants"] == {"null": ["read", "run"], "system": ["read"]}
    assert told["paths"] == ["/models"]
    assert told["refused"]["stat_path"] == "NotFound"
    assert told["refused"]["open_file"] == "ReadOnly"
    assert told["refused"]["spawn_program"] == "Denied"
    assert told["refused"]["alloc_gpu"] in ("BadHandle", "WrongKind", "Denied")
    assert told["without token"] == "Denied"
    assert told["argv"] == ["one", "two"]


def test_a_program_that_gets_nothing_has_nothing(shared: RawClient) -> None:
    told = json.loads(spawned(shared, *TELLER)["value"]["output"])  # type: ignore[index]
    assert list(told["grants"]) == ["env"]
    assert told["paths"] == []
    assert set(told["refused"].values()) == {"NotFound", "BadHandle", "WrongKind"}


def test_a_program_cannot_be_given_more_than_one_has(shared: RawClient, model: int) -> None:
    narrow = shared.call("dup_handle", handle=model, rights=["run"])["handle"]
    error = shared.error("spawn_program", system=shared.system, argv=["true"], grants=[{"handle": narrow}])
    assert isinstance(error, Denied)
    assert error.missing == "grant"
    wide = [{"handle": narrow, "rights": ["manage"]}]
    assert isinstance(shared.error("spawn_program", system=shared.system, argv=["true"], grants=wide), Denied)
    mounts = [{"path": "/dev", "mode": "rw"}]
    error = shared.error("spawn_program", system=shared.system, argv=["true"], mounts=mounts)
    assert isinstance(error, ReadOnly)
    shared.call("close_handle", handle=narrow)


@pytest.mark.parametrize(
    ("argv", "state", "exit"),
    [(["true"], "done", 0), (["sh", "-c", "exit 7"], "failed", 7), (["sh", "-c", "kill -9 $$"], "failed", -9)],
)
def test_a_program_ends_with_its_status(shared: RawClient, argv: list[str], state: str, exit: int) -> None:
    result = spawned(shared, *argv)
    assert (result["state"], result["exit"]) == (state, exit)


def test_the_last_output_of_a_program_is_kept(shared: RawClient) -> None:
    result = spawned(shared, "sh", "-c", "seq 100000; echo no newline | tr -d '\\n'")
    lines = result["value"]["output"].splitlines()  # type: ignore[index]
    assert lines[-2:] == ["100000", "no newline"]
    assert len(lines) <= 100


def test_cancel_ends_a_program_and_what_it_started(shared_kernel: KernelProcess, shared: RawClient) -> None:
    argv = ["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"]
    task = shared.call("spawn_program", system=shared.system, argv=argv)
    shell = shared.call("stat_object", handle=task["handle"])["fields"]["pid"]
    children = Path(f"/proc/{shell}/task/{shell}/children")
    eventually(shared_kernel, lambda: bool(children.read_text()), lambda: "a child of the shell")
    with watched(int(children.read_text().split()[0])) as grandchild_ends:
        state = shared.call("cancel_task", task=task["handle"], grace_s=0.1)
        assert state["state"] == "cancelled"
        grandchild_ends()
    assert shared.call("wait_task", task=task["handle"])["exit"] == -9


def test_pause_and_resume_stop_and_continue_a_program(shared_kernel: KernelProcess, shared: RawClient) -> None:
    task = shared.call("spawn_program", system=shared.system, argv=["sleep", "600"])["handle"]
    pid = shared.call("stat_object", handle=task)["fields"]["pid"]

    def letter() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    shared.call("control_object", handle=task, action="pause")
    eventually(shared_kernel, lambda: letter() == "T", letter)
    assert shared.error("control_object", handle=task, action="pause").state == "paused"  # type: ignore[attr-defined]
    shared.call("control_object", handle=task, action="resume")
    eventually(shared_kernel, lambda: letter() == "S", letter)
    shared.call("control_object", handle=task, action="pause")
    assert shared.call("cancel_task", task=task, grace_s=60)["state"] == "cancelled"


def test_a_program_outlives_the_session_that_started_it(shared_kernel: KernelProcess, shared: RawClient) -> None:
    with shared_kernel.client("starter") as starter:
        task = starter.call("spawn_program", system=starter.system, argv=["sleep", "600"])["id"]
    (found,) = shared.call("list_objects", system=shared.system, kind="task", prefix=task)
    assert found["state"] == "running"
    shared.call("cancel_task", task=found["handle"], grace_s=0)


# ---- events


def test_events_that_were_not_paid_for_are_counted(shared_kernel: KernelProcess, shared: RawClient) -> None:
    with shared.watching("session", credit=1) as events:
        for _ in range(5):
            with shared_kernel.client("noise"):
                pass
        shared.quiet()
        assert len(events.chunks) == 1
        shared.credit(events.number, 1)
        shared.until(lambda: len(events.chunks) == 2)
        assert events.chunks[0]["lost"] == 0
        assert events.chunks[1]["lost"] == 8
        assert events.chunks[1]["fields"]["state"] == "closed"


def test_events_are_filtered(shared_kernel: KernelProcess, shared: RawClient, model: int) -> None:
    with shared.watching("model", about="nothing") as about, shared.watching("task") as tasks:
        with shared.watching("session") as sessions, shared_kernel.client("seen") as seen:
            shared.quiet()
            assert [event["about"] for event in sessions.chunks] == [seen.session]
        assert about.chunks == tasks.chunks == []

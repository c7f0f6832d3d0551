"""Clients that vanish, come back, or never read: nothing of theirs stays, and nobody else notices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import Denied, NotFound, OverQuota, TimedOut
from system.footprint import Footprint
from system.kernel_process import KernelProcess, eventually, running
from system.model_folder import write_model
from system.puppet import Puppet, puppet
from system.raw_client import RawClient

ENDLESS = {"ignore_eos": True, "max_tokens": 2000}


@pytest.fixture(autouse=True)
def nothing_kept(footprint: Footprint) -> None:
    """Whatever clients did, the kernel keeps nothing of it."""


@pytest.fixture
def model(shared: RawClient) -> Iterator[int]:
    """The null model, loaded for this test."""
    model = shared.load("null")
    yield model
    shared.call("unload_model", model=model, force=True)  # a request of a killed program may still end


@pytest.fixture
def other(shared_kernel: KernelProcess) -> Iterator[Puppet]:
    """Another program."""
    with puppet(shared_kernel.socket) as other:
        yield other


def crowds(kernel: KernelProcess, processes: int, each: int) -> list[Puppet]:
    """Processes that hold so many sessions each, all in the middle of a stream."""
    found = [Puppet(kernel.socket) for _ in range(processes)]
    for one in found:
        one.tell("gather", each, "null", "!slow 1; endless")
    for one in found:
        assert one.hear() == each
    return found


@pytest.mark.slow
def test_200_clients_are_killed_in_the_middle_of_their_streams(
    shared_kernel: KernelProcess, shared: RawClient, model: int
) -> None:
    found = crowds(shared_kernel, 4, 50)
    assert len(shared.names("/proc/sessions")) >= 200
    for one in found:
        one.kill()
        one.close()
    eventually(shared_kernel, lambda: len(shared.names("/proc/sessions")) == 2, lambda: shared.requests())
    eventually(shared_kernel, lambda: shared.requests() == {}, shared.requests)
    assert shared.infer(model, "still")["choices"][0]["text"] == "still"


def test_200_clients_leave_without_a_word(shared_kernel: KernelProcess, shared: RawClient, model: int) -> None:
    for one in crowds(shared_kernel, 4, 50):
        one.do("leave")
        one.close()
    eventually(shared_kernel, lambda: shared.requests() == {}, shared.requests)
    assert shared.infer(model, "still")["choices"][0]["text"] == "still"


def test_what_a_killed_program_held_is_free_at_once(
    shared_kernel: KernelProcess, shared: RawClient, other: Puppet, model: int
) -> None:
    session = other.hello()
    other.call("alloc_gpu", device=session.grants["null0"], bytes=1 << 20)
    buffer = Path(other.call("alloc_buffer", system=session.system, bytes=1 << 20)["path"])
    theirs = other.do("load", "null")
    other.call("open_context", model=theirs)
    other.call("open_file", path="/home/draft", mode="w")
    running_one = other.do("send", "infer", model=theirs, input={"type": "text", "text": "!late 200; x"})
    assert running_one
    assert buffer.exists()
    other.kill()
    eventually(shared_kernel, lambda: not buffer.exists(), lambda: buffer)
    eventually(shared_kernel, lambda: shared.names("/proc/leases") == [], lambda: shared.names("/proc/leases"))
    assert shared.names("/proc/contexts") == []
    assert shared.names("/home") == []


def test_what_another_program_looked_at_does_not_keep_it(
    shared_kernel: KernelProcess, shared: RawClient, other: Puppet
) -> None:
    session = other.hello()
    other.call("alloc_gpu", device=session.grants["null0"], bytes=1 << 20)
    buffer = Path(other.call("alloc_buffer", system=session.system, bytes=100)["path"])
    for kind in ("lease", "buffer", "session"):
        assert shared.call("list_objects", system=shared.system, kind=kind)
    other.kill()
    eventually(shared_kernel, lambda: shared.names("/proc/leases") == [], lambda: shared.names("/proc/leases"))
    eventually(shared_kernel, lambda: not buffer.exists(), lambda: buffer)


def test_a_connection_is_taken_up_again_by_its_own_process(shared_kernel: KernelProcess) -> None:
    with shared_kernel.connection() as first:
        session = first.hello()
        lease = session.call("alloc_gpu", device=session.grants["null0"], bytes=1)
        listed = session.call("list_objects", system=session.system, kind="session")
        assert listed
    with shared_kernel.connection() as second:
        second.hello(resume=session.token)
        assert second.session == session.session
        assert second.token != session.token
        assert second.call("stat_object", handle=lease["handle"])["id"] == lease["id"]
        assert isinstance(second.error("hello", protocol=1, program="again", resume=session.token), Denied)
        second.call("close_handle", handle=second.handle)


def test_resume_after_an_object_that_was_listed_has_ended(shared_kernel: KernelProcess, other: Puppet) -> None:
    other.hello()
    with shared_kernel.connection() as first:
        session = first.hello()
        assert len(session.call("list_objects", system=session.system, kind="session")) >= 2
        other.kill()
        eventually(shared_kernel, lambda: len(first.names("/proc/sessions")) == 2, first.requests)
    with shared_kernel.connection() as second:
        second.hello(resume=session.token)
        second.call("close_handle", handle=second.handle)


def test_a_token_of_another_process_opens_nothing(shared: RawClient, other: Puppet) -> None:
    with pytest.raises(Denied) as refused:
        other.hello(resume=shared.token)
    assert refused.value.missing == "session"  # type: ignore[attr-defined]
    with pytest.raises(Denied):
        other.hello(resume="x")
    assert other.hello().session != shared.session
    shared.quiet()


def test_a_second_hello_ends_the_first_session(shared_kernel: KernelProcess) -> None:
    with shared_kernel.connection() as client:
        first = client.hello("first").session
        lease = client.call("alloc_gpu", device=client.grants["null0"], bytes=1)
        client.hello("second")
        assert client.session != first
        assert client.names("/proc/leases") == []
        assert lease["handle"]
        client.call("close_handle", handle=client.handle)


def test_a_session_that_said_goodbye_is_over(shared_kernel: KernelProcess) -> None:
    with shared_kernel.connection() as client:
        client.hello()
        client.call("close_handle", handle=client.handle)
        assert isinstance(client.error("stat_object", handle=client.system), Denied)


def test_a_session_without_connection_ends_when_it_does_not_come_back(folder: Path) -> None:
    config = "[limits]\nresume_s = 0.2\n"
    with running(folder, config, drivers="null0") as kernel, kernel.client() as client:
        client.await_driver("ready")
        with kernel.connection() as lost:
            lost.hello("lost")
            lost.call("alloc_gpu", device=lost.grants["null0"], bytes=1)
        eventually(kernel, lambda: len(client.names("/proc/sessions")) == 1, lambda: client.names("/proc/sessions"))
        assert client.names("/proc/leases") == []


def test_a_reader_that_never_reads_is_given_up(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, "[limits]\nstalled_reader_s = 0.3\n") as kernel, kernel.client() as client:
        number = client.start(client.load("null"), "!slow 1; x", "infer_stream", call_credit=1, **ENDLESS)
        answer = client.wait(number)
        assert isinstance(answer.error, TimedOut)
        assert "took nothing for 0.3 s" in str(answer.error)
        assert answer.text.startswith("xx")
        eventually(kernel, lambda: client.requests() == {}, client.requests)
        client.quiet()


def test_a_reader_that_pays_late_is_not_given_up(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, "[limits]\nstalled_reader_s = 60\n") as kernel, kernel.client() as client:
        number = client.start(client.load("null"), "abcdef", "infer_stream", call_credit=1)
        answer = client.first_chunk(number)
        client.credit(number, 10)
        assert client.wait(number).value["choices"][0]["text"] == "abcdef"
        assert answer.text == "abcdef"


def test_answers_to_a_program_that_does_not_read_are_kept_for_it(shared: RawClient) -> None:
    numbers = [shared.send("read_journal", system=shared.system, limit=200) for _ in range(300)]
    for number in numbers:
        assert shared.wait(number).kind is not None
    shared.quiet()


def test_sessions_are_limited(folder: Path) -> None:
    with running(folder, "[limits]\nsessions = 3\n", drivers="") as kernel, kernel.client() as client:
        with kernel.client(), kernel.client(), kernel.connection() as fourth:
            assert "3 sessions are open" in str(fourth.error("hello", protocol=1, program="fourth"))
        eventually(kernel, lambda: len(client.names("/proc/sessions")) == 1, lambda: client.names("/proc/sessions"))


def test_a_session_that_cannot_have_its_first_handles_leaves_nothing(folder: Path) -> None:
    config = f"[policy.uid.{os.getuid()}.limits]\nhandles = 2\n"
    with running(folder, config, drivers="") as kernel, kernel.connection() as client:
        assert isinstance(client.error("hello", protocol=1, program="test"), OverQuota)
        assert isinstance(client.error("stat_object", handle=1), Denied)


def test_a_request_of_a_session_that_ended_is_not_found(shared: RawClient, other: Puppet, model: int) -> None:
    other.hello()
    theirs = other.do("load", "null")
    other.do("send", "infer", model=theirs, input={"type": "text", "text": "!slow 20; x"}, sampling=ENDLESS)
    other.call("stat_object", handle=theirs)
    request = shared.request_id("infer")
    assert shared.call("cancel_task", request=request)["state"] == "cancelled"
    assert isinstance(shared.error("cancel_task", request=request), NotFound)

"""A host's connection, with real processes: the control lane, the parent, a kernel that speaks nonsense or is deaf."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from framed import Framed
from llmos.drivers.link import Incoming, Link
from llmos.drivers.parent import EXIT_ORPHAN
from llmos.syscalls.driver import HostStats
from llmos.syscalls.wire import LIMITS, MessageKind, pack, unpack

PARENT = """
import os, subprocess, sys
fd = sys.argv[1]
host = subprocess.Popen([sys.executable, "-m", "llmos.drivers.host", "null0", "--fd", fd], pass_fds=[int(fd)],
                        env={**os.environ, "LLMOS_PARENT_PID": str(os.getpid())})
os.close(int(fd))
print(host.pid, flush=True)
sys.stdin.read()
"""


def test_control_calls_are_answered_while_work_goes_on(null: Any) -> None:
    work = null.submit("!slow 1500; hello", sampling={"max_tokens": 1})
    null.until_step(15)
    stats = null.send("stats")
    credit = null.send("credit", {"id": "r", "credit": 4})
    null.answer(work)
    order = [m.request for m in null.log if m.kind in (MessageKind.REPLY, MessageKind.END)]
    assert order[-3:] == [stats, credit, work]
    assert null.answer(stats).body["value"]["values"]["running"] == 1


def test_a_control_call_that_makes_no_sense_gets_an_error(null: Any) -> None:
    error = null.call("cancel", {"name": "r"})
    assert error["name"] == "BadArgument" and "name" in error["message"]


def test_stats_before_the_start_are_empty(kernel: Any) -> None:
    kernel.until(MessageKind.BEAT)
    assert kernel.call("stats") == {"memory": [], "values": {}}


def test_calls_sent_during_long_work_wait_their_turn(null: Any) -> None:
    null.submit("!slow 400; hi", sampling={"max_tokens": 1})
    null.until_step(4)
    numbers = [null.submit("hi", f"r{i}", sampling={"max_tokens": 1}) for i in range(20)]
    for number in numbers:
        assert null.answer(number).kind is MessageKind.END


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xc1", b""],
        [b"x" * 1025, b""],
        pack(MessageKind.REPLY, 1, "", {}),
    ],
)
def test_a_kernel_that_speaks_nonsense_is_left(null: Any, frames: list[bytes]) -> None:
    null.link.send(frames)
    assert null.wait() == 70
    assert "BadCall" in null.output()[1]


def test_nonsense_during_long_work_ends_the_process_too(null: Any) -> None:
    null.submit("!slow 60000; hi")
    null.until_step(600)
    null.link.send([b"\xc1", b""])
    assert null.wait() == 70
    assert "BadCall" in null.output()[1]


@pytest.mark.parametrize("work", ["", "!hang busy; x", "!slow 60000; x"])
def test_a_host_ends_when_its_parent_is_killed(kernel: Any, work: str) -> None:
    """The fake kernel answers it, but another process is its parent."""
    kernel.close()
    parent = kernel.spawn([sys.executable, "-c", PARENT], stdin=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        host = os.pidfd_open(int(parent.stdout.readline()))
        kernel.process = parent
        kernel.start()
        kernel.load()
        if work:
            kernel.submit(work)
            while kernel.until(MessageKind.BEAT).body["busy_with"] != "requests":
                pass
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        ended, _, _ = select.select([host], [], [], 60)
        os.close(host)
    assert ended


def test_a_host_whose_parent_is_already_gone_does_not_start(kernel: Any) -> None:
    kernel.close()
    command = [sys.executable, "-m", "llmos.drivers.host", "null0", "--fd"]
    with kernel.spawn(command, env={**os.environ, "LLMOS_PARENT_PID": "1"}) as process:
        assert process.wait() == EXIT_ORPHAN


@pytest.mark.parametrize("lent", [False, True])
@pytest.mark.parametrize("end", ["the parent", "the connection", "unread"])
def test_the_parent_and_its_socket_are_watched_by_descriptor_as_well(lent: bool, end: str) -> None:
    """The signal at a parent's death is lost when the thread that spawned the host ends first."""
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ours, theirs = socket.socketpair()
    code = (
        f"import sys, threading; from llmos.drivers.link import Link; link = Link({theirs.fileno()}, {parent.pid});"
        "link.post([[b'x', b'y']]); print('watching', flush=True);"
        + ("link.lend(); threading.Event().wait()" if lent else "link.receive(600)")
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]) as host, parent, ours:
        theirs.close()
        assert host.stdout is not None and host.stdout.readline() == b"watching\n"
        if end == "the parent":
            parent.kill()
        else:
            if end == "the connection":
                Framed(ours).poll(60_000)  # a socket closed with bytes unread resets the connection
            ours.close()
        assert host.wait(60) == EXIT_ORPHAN
        parent.kill()


# ---- a kernel that does not read


@pytest.fixture
def ends() -> Iterator[tuple[Link, Framed]]:
    """A link in this process and the kernel's end of it."""
    ours, theirs = socket.socketpair()
    link = Link(theirs.detach(), os.getpid())
    yield link, Framed(ours)
    link.close()
    ours.close()


FLOOD = 400
PIECE = b"x" * 8192


def flood(link: Link) -> None:
    """More than a socket holds."""
    for number in range(FLOOD):
        link.post([[b"%d" % number, PIECE]])


def read(kernel: Framed, link: Link, count: int) -> tuple[list[list[bytes]], list[Any]]:
    """So many messages, and what the link has received meanwhile."""
    messages: list[list[bytes]] = []
    calls = []
    while len(messages) < count:
        calls.append(link.receive(0.0))
        while kernel.poll(0):
            messages.append(kernel.receive())
    return messages, [call for call in calls if call is not None]


@pytest.mark.parametrize("lent", [False, True])
def test_a_kernel_that_does_not_read_holds_nothing_up_and_loses_nothing(ends: tuple[Link, Framed], lent: bool) -> None:
    link, kernel = ends
    if lent:
        link.lend()
    flood(link)
    kernel.send(pack(MessageKind.CALL, 1, "stats", HostStats()))
    kernel.send(pack(MessageKind.CALL, 2, "drain"))
    messages, calls = read(kernel, link, FLOOD + 1)
    answers = [place for place, message in enumerate(messages) if len(message[0]) > 3]
    assert [message[0] for place, message in enumerate(messages) if place not in answers] == [
        b"%d" % number for number in range(FLOOD)
    ]
    assert unpack(messages[answers[0]]).request == 1
    assert (calls or [link.receive(60.0)]) == [Incoming(2, "drain", pack(MessageKind.CALL, 2, "drain")[1])]
    link.take_back()
    assert not link._full


def test_what_is_posted_last_is_sent_before_the_end() -> None:
    ours, theirs = socket.socketpair()
    link = Link(theirs.detach(), os.getpid())
    flood(link)
    closing = threading.Thread(target=link.close)
    closing.start()
    kernel = Framed(ours)
    numbers = []
    while kernel.poll(60_000):
        numbers.append(kernel.receive()[0])
    closing.join()
    assert numbers == [b"%d" % number for number in range(FLOOD)]
    kernel.close()


def test_large_messages_pass_both_ways(ends: tuple[Link, Framed]) -> None:
    link, kernel = ends
    body = pack(MessageKind.CALL, 1, "load", {"x": os.urandom(LIMITS.message_bytes - 100)})
    sending = threading.Thread(target=kernel.send, args=[body])
    sending.start()
    call = link.receive(60.0)
    while call is None:
        call = link.receive(60.0)
    sending.join()
    assert call == Incoming(1, "load", body[1])
    link.post([body])
    assert read(kernel, link, 1) == ([body], [])


def test_programs_that_a_driver_starts_do_not_get_the_connection() -> None:
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    fd = theirs.detach()
    link = Link(fd, os.getpid())
    assert not os.get_inheritable(fd)
    link.close()
    ours.close()

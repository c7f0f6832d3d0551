"""A host's connection, with real processes: the control lane, the parent, and a kernel that speaks nonsense."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.link import EXIT_ORPHAN
from llmos.syscalls.wire import MessageKind, pack

PARENT = """
import os, subprocess, sys
host = subprocess.Popen([sys.executable, "-m", "llmos.drivers.host", "null0", "--socket", sys.argv[1]],
                        env={**os.environ, "LLMOS_PARENT_PID": sys.argv[2] or str(os.getpid())})
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
        pack(MessageKind.REPLY, 1, "", {}),
        [*pack(MessageKind.CALL, 1, "stats"), b"surplus"],
    ],
)
def test_a_kernel_that_speaks_nonsense_is_left(null: Any, frames: list[bytes]) -> None:
    null.send_frames(frames)
    assert null.wait() == 70
    assert "BadCall" in null.output()[1]


def test_nonsense_during_long_work_ends_the_process_too(null: Any) -> None:
    null.submit("!slow 60000; hi")
    null.until_step(600)
    null.send_frames([b"\xc1", b""])
    assert null.wait() == 70
    assert "BadCall" in null.output()[1]


@pytest.mark.parametrize("work", ["", "!hang busy; x", "!slow 60000; x"])
def test_a_host_ends_when_its_parent_is_killed(kernel: Any, folder: Path, work: str) -> None:
    """The fake kernel answers it, but another process is its parent."""
    kernel.process.kill()
    kernel.output()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, kernel.endpoint, ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
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
    kernel.process.kill()
    kernel.output()
    environ = {**os.environ, "LLMOS_PARENT_PID": "1"}
    command = [sys.executable, "-m", "llmos.drivers.host", "null0", "--socket", kernel.endpoint]
    assert subprocess.run(command, env=environ, check=False).returncode == EXIT_ORPHAN


@pytest.mark.parametrize("lent", [False, True])
def test_the_parent_is_watched_by_descriptor_as_well(folder: Path, lent: bool) -> None:
    """The signal at a parent's death is lost when the thread that spawned the host ends first."""
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    code = (
        "import sys, threading; from llmos.drivers.link import Link;"
        f"link = Link('ipc://{folder}/h.sock', {parent.pid});"
        "print('watching', flush=True);"
        + ("link.lend(); threading.Event().wait()" if lent else "link.receive(600)")
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as host:
        assert host.stdout is not None and host.stdout.readline() == b"watching\n"
        with parent:
            parent.kill()
        assert host.wait(60) == EXIT_ORPHAN

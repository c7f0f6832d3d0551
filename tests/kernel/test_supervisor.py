"""Hosts: found, started, listened to, killed, restarted. The processes are real, what they say is fed by the test."""

from __future__ import annotations

import errno
import os
import signal
import socket
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from framed import Framed
from watching import Loop

from llmos.kernel import supervisor as module
from llmos.kernel.channel import Channel
from llmos.kernel.config import DriverConfig
from llmos.kernel.journal import Journal
from llmos.kernel.supervisor import (
    DEVICES, FILESYSTEMS, Driver, DriverState, Observer, Supervisor, discover, thread_budget,
)  # fmt: skip
from llmos.syscalls.driver import HostStats
from llmos.syscalls.errors import BadState, DriverFailed, LlmosError, NotFound, NotSupported
from llmos.syscalls.events import HostEvent
from llmos.syscalls.types import Reason
from llmos.syscalls.wire import Message, MessageKind, error_frames, pack, unpack

STAND_IN = """
    import os, signal, sys
    what = os.environ["STAND_IN"]
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(*sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.environ["LLMOS_PARENT_PID"], flush=True)
    if what == "exits":
        print("last words", flush=True)
        sys.exit(3)
    while True:
        signal.pause()
"""


class Seen(Observer):
    def __init__(self) -> None:
        self.ready: list[str] = []
        self.lost: list[str] = []
        self.events: list[HostEvent] = []
        self.states: list[str] = []

    def driver_ready(self, driver: Driver) -> None:
        self.ready.append(driver.name)

    def driver_lost(self, driver: Driver, cause: str) -> None:
        self.lost.append(cause)

    def driver_event(self, driver: Driver, event: HostEvent) -> None:
        self.events.append(event)

    def driver_changed(self, driver: Driver, reasons: Sequence[Reason]) -> None:
        self.states.append(driver.state.value)


class HeldChannel(Channel):
    """The test holds the host's end as well as the stand-in, which says nothing and reads nothing."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.host = Framed(self.theirs.dup())

    def says(self, frames: Sequence[bytes]) -> None:
        self.host.send(frames)
        self._happened()

    def close(self) -> None:
        super().close()
        self.host.close()


class Hosts:
    """A supervisor over stand-ins for the host program."""

    def __init__(self, folder: Path) -> None:
        package = folder / "llmos" / "drivers"
        package.mkdir(parents=True)
        for place in (package, package.parent):
            (place / "__init__.py").touch()
        (package / "host.py").write_text(textwrap.dedent(STAND_IN))
        self.loop, self.seen = Loop(), Seen()
        self.journal = Journal(1000, None, time.time, None)
        self.environ = {**os.environ, "PYTHONPATH": str(folder), "STAND_IN": "waits"}
        self.supervisor = Supervisor(
            self.loop.runner, self.loop, self.journal, self.seen, self.environ, time.time, 4242
        )

    def add(self, what: str = "waits", group: str = DEVICES, **settings: Any) -> Driver:
        self.supervisor._environ["STAND_IN"] = what
        return self.supervisor.add("null0", group, DriverConfig(**settings), 2)

    def start(self, what: str = "waits", **settings: Any) -> Driver:
        """A driver whose process is up."""
        driver = self.add(what, **settings)
        self.supervisor.start(driver)
        self.loop.until(lambda: driver.child is None or driver.child.tail())
        return driver

    def channel(self, driver: Driver) -> HeldChannel:
        assert isinstance(driver.channel, HeldChannel)
        return driver.channel

    def says(self, driver: Driver, kind: MessageKind, body: Any, name: str = "", number: int = 0) -> None:
        self.channel(driver).says(pack(kind, number, name, body))

    def sent(self, driver: Driver) -> list[Message]:
        """What the driver was sent since this was asked last."""
        host = self.channel(driver).host
        messages = []
        while host.poll(0):
            messages.append(unpack(host.receive()))
        return messages

    def beats(self, driver: Driver, may_take_s: float = 60.0, seq: int = 1) -> None:
        self.says(driver, MessageKind.BEAT, {"seq": seq, "steps": 7, "busy_with": "a step", "may_take_s": may_take_s})

    def ready(self, driver: Driver, name: str = "null0") -> None:
        devices = [{"name": name, "kind": "null", "memory_bytes": 10}]
        self.says(driver, MessageKind.EVENT, {"devices": devices}, "ready")

    def up(self, **settings: Any) -> Driver:
        driver = self.start(**settings)
        self.beats(driver)
        self.ready(driver)
        assert driver.state is DriverState.READY
        return driver

    def until(self, driver: Driver, state: DriverState) -> None:
        self.loop.until(lambda: driver.state is state)

    def close(self) -> None:
        for driver in self.supervisor.running:
            self.supervisor.kill_now(driver)
        assert self.loop.watched == 0
        self.loop.close()


@pytest.fixture
def hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    monkeypatch.setattr(module, "Channel", HeldChannel)
    hosts = Hosts(folder)
    yield hosts
    hosts.close()


# ---- which drivers, and how many threads


def test_drivers_are_found_by_their_metadata() -> None:
    found, unknown = discover(None)
    assert ("cpu0", DEVICES) in found and ("models", FILESYSTEMS) in found and unknown == []
    assert not [name for name, _ in found if name.startswith("null")]
    assert discover(["null0", "nothing"]) == ([("null0", DEVICES)], ["nothing"])


@pytest.mark.parametrize(
    ("asked", "cores", "given"),
    [
        ({"a": None, "b": None, "null0": None}, 8, {"a": 4, "b": 4, "null0": 1}),
        ({"a": 3, "b": None}, 8, {"a": 3, "b": 5}),
        ({"a": 99, "b": None}, 4, {"a": 4, "b": 1}),
        ({}, 4, {}),
    ],
)
def test_threads_are_shared(asked: dict[str, int | None], cores: int, given: dict[str, int]) -> None:
    assert thread_budget(asked, cores) == given


# ---- start and stop


def test_a_host_is_told_who_it_is_and_gets_ready(hosts: Hosts) -> None:
    driver = hosts.start(config={"a": 1}, memory_bytes=5)
    assert driver.state is DriverState.STARTING and driver.child is not None
    name, option, fd, *rest = driver.child.tail().split()
    assert (name, option, rest) == ("null0", "--fd", ["2", "4242"]) and int(fd) > 2
    [message] = hosts.sent(driver)
    assert message.name == "start" and message.body["manifest"]["config"] == {"a": 1}
    assert message.body["manifest"]["memory_bytes"] == 5
    hosts.beats(driver)
    hosts.ready(driver)
    hosts.ready(driver)
    assert hosts.seen.ready == ["null0"] and driver.facts is not None and driver.facts.memory_bytes == 10
    lines = [record.text for record in hosts.journal.read(about="null0") if record.unit == "driver"]
    assert lines == [f"null0 --fd {fd} 2 4242"]
    with pytest.raises(BadState, match="runs already"):
        hosts.supervisor.start(driver)


def test_unknown_drivers_are_named(hosts: Hosts) -> None:
    driver = hosts.add()
    assert hosts.supervisor.get("null0") is driver
    with pytest.raises(NotFound, match="announced are: null0"):
        hosts.supervisor.get("none")


def test_a_stopped_host_stays_stopped(hosts: Hosts) -> None:
    driver = hosts.up()
    call = driver.link.call(HostStats()) if driver.link else None
    hosts.supervisor.stop(driver)
    waiting = hosts.supervisor.wait_ready(driver)
    hosts.until(driver, DriverState.STOPPED)
    assert hosts.seen.lost == ["stopped"] and driver.pid == 0 and hosts.supervisor.running == []
    for future in (waiting, call):
        assert future is not None
        with pytest.raises(LlmosError, match="stopped"):
            future.result()
    hosts.supervisor.stop(driver)
    assert driver.state is DriverState.STOPPED


def test_who_waits_for_a_host_that_is_stopped_before_it_is_ready_is_told(hosts: Hosts) -> None:
    driver = hosts.start()
    waiting = hosts.supervisor.wait_ready(driver)
    assert not waiting.done
    hosts.supervisor.stop(driver)
    hosts.until(driver, DriverState.STOPPED)
    with pytest.raises(BadState):
        waiting.result()


def test_a_host_that_ignores_the_end_is_killed(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = hosts.start("stubborn")
    hosts.supervisor.stop(driver)
    assert driver.child is not None
    driver.child.signal(signal.SIGKILL)
    hosts.until(driver, DriverState.STOPPED)


def test_a_host_finishes_what_runs_before_it_ends(hosts: Hosts) -> None:
    driver = hosts.up()
    hosts.supervisor.stop(driver, 60.0)
    *_, message = hosts.sent(driver)
    assert message.name == "drain" and driver.child is not None
    hosts.says(driver, MessageKind.REPLY, {"value": {}}, number=message.request)
    hosts.until(driver, DriverState.STOPPED)


def test_a_host_that_does_not_drain_is_ended(hosts: Hosts) -> None:
    driver = hosts.start()
    hosts.supervisor.stop(driver, 0.01)
    assert [message.name for message in hosts.sent(driver)] == ["start", "drain"]
    hosts.until(driver, DriverState.STOPPED)


def test_a_host_is_restarted_on_request_without_counting(hosts: Hosts) -> None:
    driver = hosts.up(restarts=0)
    before = driver.pid
    hosts.supervisor.restart(driver)
    hosts.loop.until(lambda: driver.pid not in (0, before))
    assert driver.cause == "" and driver.state is DriverState.STARTING
    hosts.supervisor.stop(driver)
    hosts.until(driver, DriverState.STOPPED)
    hosts.supervisor.restart(driver)
    assert driver.state is DriverState.STARTING


# ---- crashes


def test_a_crashed_host_is_back_at_once_and_fails_when_it_crashes_too_often(hosts: Hosts) -> None:
    driver = hosts.add("exits", restarts=1)
    hosts.supervisor.start(driver)
    waiting = hosts.supervisor.wait_ready(driver)
    hosts.until(driver, DriverState.FAILED)
    assert hosts.seen.states == ["starting", "backoff", "starting", "failed"]
    assert hosts.seen.lost == ["exit status 3; last words"] * 2
    for future in (waiting, hosts.supervisor.wait_ready(driver)):
        with pytest.raises(DriverFailed, match="last words") as failed:
            future.result()
        assert failed.value.restarts == 1
    hosts.supervisor._environ["STAND_IN"] = "waits"
    hosts.supervisor.reset(driver)
    assert driver.state is DriverState.STARTING
    with pytest.raises(BadState, match="use restart"):
        hosts.supervisor.reset(driver)


def test_a_host_that_waits_for_its_restart_can_be_stopped(hosts: Hosts) -> None:
    driver = hosts.add("exits", restarts=5)
    hosts.supervisor.start(driver)
    hosts.loop.until(lambda: hosts.seen.states.count("backoff") == 2)
    hosts.supervisor.stop(driver)
    assert driver.state is DriverState.STOPPED and driver.due is None
    assert hosts.loop.runner.next_timer() is None


def test_who_waits_gets_the_driver_when_it_is_ready(hosts: Hosts) -> None:
    driver = hosts.start()
    waiting = hosts.supervisor.wait_ready(driver)
    hosts.beats(driver)
    hosts.ready(driver)
    assert waiting.result() is driver is hosts.supervisor.wait_ready(driver).result()


# ---- what hosts say


@pytest.mark.parametrize("noise", [b"\0\0\0\1\0\0\0\1\xc1\xc1", b"\xff" * 8], ids=["a message", "the stream"])
def test_garbage_ends_the_host(hosts: Hosts, noise: bytes) -> None:
    driver = hosts.up(restarts=0)
    hosts.channel(driver).host.socket.sendall(noise)
    hosts.until(driver, DriverState.FAILED)
    assert "no message of a driver" in driver.cause


def test_what_a_host_said_last_counts_although_it_has_ended(hosts: Hosts) -> None:
    driver = hosts.up(restarts=0)
    call = driver.link.call(HostStats()) if driver.link else None
    *_, message = hosts.sent(driver)
    host = hosts.channel(driver).host
    host.send(pack(MessageKind.REPLY, message.request, "", {"value": {"values": {"x": 1.0}}}))
    host.send(pack(MessageKind.EVENT, 0, "fault", {"text": "the bus fell off", "sticky": True}))
    assert driver.child is not None and call is not None
    os.kill(driver.pid, signal.SIGKILL)
    driver.child._exited()
    assert call.result().values == {"x": 1.0} and driver.cause == "the bus fell off"
    assert driver.state is DriverState.FAILED


def test_a_host_that_closes_its_connection_must_end(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.01)
    driver = hosts.up(restarts=0)
    hosts.channel(driver).host.socket.shutdown(socket.SHUT_WR)
    hosts.until(driver, DriverState.FAILED)
    assert driver.cause == "it closed its connection to the kernel and did not end"


def test_a_host_that_closes_its_connection_after_a_fault_has_that_as_its_cause(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.01)
    driver = hosts.up(restarts=0)
    hosts.says(driver, MessageKind.EVENT, {"text": "a page was lost", "sticky": False}, "fault")
    hosts.channel(driver).host.socket.shutdown(socket.SHUT_WR)
    hosts.until(driver, DriverState.FAILED)
    assert driver.cause == "a page was lost"


def test_a_device_host_must_report_its_device(hosts: Hosts) -> None:
    driver = hosts.start(restarts=0)
    hosts.ready(driver, "other")
    hosts.until(driver, DriverState.FAILED)
    assert "does not report the device null0" in driver.cause


def test_a_file_system_reports_no_device(hosts: Hosts) -> None:
    driver = hosts.start(group=FILESYSTEMS)
    hosts.says(driver, MessageKind.EVENT, {"devices": [], "filesystem": "models"}, "ready")
    assert driver.state is DriverState.READY and driver.facts is None


def test_other_events_are_handed_on(hosts: Hosts) -> None:
    driver = hosts.up()
    hosts.says(driver, MessageKind.EVENT, {"about": "m", "values": {"x": 1.0}}, "metric")
    assert len(hosts.seen.events) == 1


def test_why_a_start_failed_is_the_cause(hosts: Hosts) -> None:
    driver = hosts.start(restarts=0)
    [message] = hosts.sent(driver)
    hosts.channel(driver).says(error_frames(message.request, NotSupported("no such hardware")))
    assert driver.child is not None
    driver.child.signal(signal.SIGKILL)
    hosts.until(driver, DriverState.FAILED)
    assert driver.cause == "no such hardware"


def test_a_fault_is_the_cause_and_a_sticky_one_must_end_the_host_soon(hosts: Hosts) -> None:
    driver = hosts.up(restarts=0)
    hosts.says(driver, MessageKind.EVENT, {"text": "a page was lost", "sticky": False}, "fault")
    watch = driver.watch
    hosts.says(driver, MessageKind.EVENT, {"text": "the bus fell off", "sticky": True}, "fault")
    assert driver.watch is not watch and driver.child is not None
    driver.child.signal(signal.SIGKILL)
    hosts.until(driver, DriverState.FAILED)
    assert driver.cause == "the bus fell off"


# ---- liveness


def test_a_silent_host_is_suspect_and_a_beat_clears_it(hosts: Hosts) -> None:
    driver = hosts.up()
    hosts.beats(driver, 0.01)
    hosts.until(driver, DriverState.SUSPECT)
    reason = hosts.journal.read(about="null0")[-1].reasons[0]
    assert "while a step" in reason.text and reason.numbers == {"allowed_s": 0.01, "steps": 7}
    assert hosts.supervisor.wait_ready(driver).result() is driver
    hosts.beats(driver, 60.0)
    assert driver.state is DriverState.READY


def test_a_host_that_stays_silent_is_killed(hosts: Hosts) -> None:
    driver = hosts.up(restarts=0)
    hosts.beats(driver, 0.01)
    hosts.until(driver, DriverState.FAILED)
    assert "suspect" in hosts.seen.states and "no sign of life" in driver.cause


def test_a_start_that_takes_too_long_is_killed(hosts: Hosts) -> None:
    driver = hosts.add(restarts=0, start_s=0.01)
    hosts.supervisor.start(driver)
    hosts.until(driver, DriverState.FAILED)
    assert driver.cause.endswith("while start")


def test_killing_what_has_ended_does_nothing(hosts: Hosts) -> None:
    driver = hosts.add()
    hosts.supervisor.kill_now(driver)
    hosts.supervisor._kill(driver, "test")
    assert driver.child is None


def test_an_observer_may_ignore_everything() -> None:
    observer = Observer()
    for told in (observer.driver_ready, observer.driver_lost, observer.driver_event, observer.driver_changed):
        assert told.__doc__ is None


@pytest.mark.parametrize(("owner", "name"), [(os, "pidfd_open"), (socket, "socketpair")])
def test_a_host_that_cannot_be_started_is_tried_again(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    driver = hosts.add()

    def refuse(*_given: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(owner, name, refuse)
    hosts.supervisor.start(driver)
    assert driver.child is None and driver.channel is None and "too many open files" in driver.cause
    assert hosts.seen.states[-1] == "backoff"
    hosts.supervisor.stop(driver)

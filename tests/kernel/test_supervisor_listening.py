"""What hosts say to the supervisor, and what their silence means."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from host_stand_ins import Hosts

from llmos.kernel import supervisor as module
from llmos.kernel.discovery import FILESYSTEMS
from llmos.kernel.supervisor import DriverState
from llmos.syscalls.driver import HostStats
from llmos.syscalls.errors import NotSupported
from llmos.syscalls.wire import MessageKind, error_frames, pack


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
    assert reason.code == "overdue" and "busy with a step" in reason.text
    assert reason.numbers == {"allowed_s": 0.01, "steps": 7}
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
    assert driver.cause.endswith("(busy with start)")

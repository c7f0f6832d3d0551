"""Hosts: found, started, stopped, killed, restarted. The processes are real, what they say is fed by the test."""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Any

import pytest
from host_stand_ins import Hosts

from llmos.kernel.supervisor import DriverState, Observer
from llmos.syscalls.driver import HostStats
from llmos.syscalls.errors import BadState, DriverFailed, LlmosError, NotFound
from llmos.syscalls.wire import MessageKind


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


def test_a_host_that_finds_nothing_to_drive_is_stopped_and_not_started_again(hosts: Hosts) -> None:
    driver = hosts.start()
    waiting = hosts.supervisor.wait_ready(driver)
    [start] = hosts.sent(driver)
    hosts.says(driver, MessageKind.ERROR, NotFound("there is no GPU 3").to_wire(), number=start.request)
    assert driver.child is not None and driver.absent
    driver.child.signal(signal.SIGKILL)
    hosts.until(driver, DriverState.STOPPED)
    assert hosts.seen.states == ["starting", "stopped"] and driver.cause == "there is no GPU 3"
    assert driver.policy.restarts == 0 and hosts.seen.lost == ["stopped"]
    with pytest.raises(BadState, match="there is no GPU 3"):
        waiting.result()
    [record] = [each for each in hosts.journal.read(about="null0") if each.reasons]
    assert record.reasons[0].code == "driver.absent"
    hosts.supervisor.start(driver)
    assert not driver.absent and driver.state is DriverState.STARTING


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

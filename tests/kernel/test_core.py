"""The tables of the kernel and what holds them together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest
from scripted import Inside, Program, inside

from llmos.kernel.config import DriverConfig
from llmos.kernel.supervisor import DEVICES
from llmos.syscalls.errors import Cancelled, NotFound
from watching import Loop


def test_a_driver_nobody_announces_is_left_out_and_told(folder: Path) -> None:
    with inside(folder, drivers="null0,nonsense,model") as kernel:
        assert list(kernel.kernel.supervisor.drivers) == ["null0"]
        assert "'nonsense'" in kernel.kernel.journal.read(about="nonsense")[0].text
        assert "(did you mean 'models'?)" in kernel.kernel.journal.read(about="model")[0].text


def test_ids_are_new_in_every_kernel(folder: Path) -> None:
    with inside(folder, drivers="") as one:
        first = {one.kernel.new_id("x") for _ in range(3)}
    with inside(folder, drivers="") as two:
        assert len(first) == 3 and two.kernel.new_id("x") not in first


def test_a_lost_file_system_touches_no_model(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.models.dies()
    assert program.state(model) == "awake"


def test_only_file_systems_serve_mounts(kernel: Inside) -> None:
    assert kernel.kernel.filesystem("files", "/x").name == "files"
    for name in ("null0", "nothing"):
        with pytest.raises(NotFound, match=r"no filesystem driver .*; known are files, models"):
            kernel.kernel.filesystem(name, "/x")
    with pytest.raises(NotFound, match=r"did you mean 'models'\?"):
        kernel.kernel.filesystem("model", "/x")


def test_driver_objects_are_found_by_name(kernel: Inside) -> None:
    assert kernel.kernel.driver_object("null0").driver is kernel.null.driver


def test_an_interrupt_of_what_has_ended_does_nothing(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system)
    request = kernel.session(program).requests[number]
    program.cancel(number)
    program.wait(number)
    kernel.kernel.interrupt(request, Cancelled("late"))
    program.quiet()


def test_an_interrupt_in_the_first_step_comes_after_it(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system)
    request = kernel.session(program).requests[number]
    job, request.job = request.job, None
    kernel.kernel.interrupt(request, Cancelled("early"))
    request.job = job
    kernel.settle()
    assert isinstance(program.wait(number).error, Cancelled)


def test_the_starts_of_one_pump_do_not_pump_again(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.kernel._pumping = True
    number = program.start(model, "x")
    assert "submit" not in kernel.null.names()
    kernel.kernel._pumping = False
    kernel.kernel.pump()
    kernel.settle()
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_limits_and_policy_are_taken_over_the_rest_is_not(kernel: Inside, program: Program) -> None:
    limits = msgspec.structs.replace(kernel.config.limits, sessions=1)
    wanted = msgspec.structs.replace(kernel.config, limits=limits, uid=99)
    kernel.kernel.reload(wanted)
    assert kernel.kernel.config.uid == kernel.config.uid
    assert str(kernel.connect().error("hello", protocol=1, program="x")).startswith("1 sessions are open")
    program.quiet()


def test_a_kernel_that_drains_lets_what_runs_finish(
    kernel: Inside, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: dict[str, float] = {}
    monkeypatch.setattr(kernel.kernel.supervisor, "stop", lambda driver, s: stopped.update({driver.name: s}))
    kernel.kernel.drain()
    assert stopped == {"files": 0.0, "models": 0.0, "null0": 0.0} and kernel.kernel.idle
    number = program.start(program.load("tiny"), "x")
    kernel.kernel.drain()
    assert set(stopped.values()) == {20.0}
    kernel.null.release("submit")
    program.wait(number)


def test_what_waits_at_the_end_is_answered(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    numbers = [program.start(model, "x") for _ in range(3)]
    kernel.kernel.end_requests()
    assert all(isinstance(program.wait(number).error, Cancelled) for number in numbers)


def test_hosts_that_are_left_at_the_end_are_killed(folder: Path) -> None:
    loop = Loop()
    with inside(folder, loop=loop, drivers="") as live:
        supervisor = live.kernel.supervisor
        driver = supervisor.add("null0", DEVICES, DriverConfig(), 1)
        supervisor.start(driver)
        pid = driver.pid
        assert Path(f"/proc/{pid}").exists() and not live.kernel.idle
    assert not Path(f"/proc/{pid}").exists() and loop.watched == 0
    loop.close()


def test_the_source_folder_is_no_package_of_its_own(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("kernel", root / "kernel/__init__.py")
    assert spec is not None and spec.loader is not None
    with pytest.raises(ImportError, match=r"import llmos\.kernel"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

"""serve, stop, driver, doctor, bench, help: with real processes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos.userland import boot
from llmos.userland.cli.main import main
from llmos.userland.client import Client

PROGRAM = [sys.executable, "-m", "llmos.userland.cli"]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ, "LLMOS_RUNTIME_DIR": str(folder / "run"), "LLMOS_HOME": str(folder / "home"),
        "LLMOS_LOAD_DRIVERS": "null0",
    }  # fmt: skip


@pytest.fixture
def served(folder: Path) -> Any:
    """A kernel that `llmos serve` became; it says when it accepts calls as a service manager hears it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        env = {**environment(folder), "NOTIFY_SOCKET": str(folder / "notify")}
        with subprocess.Popen([*PROGRAM, "serve"], env=env, stderr=subprocess.DEVNULL) as process:
            assert select.select([notify], [], [], 30)[0]
            assert f"MAINPID={process.pid}".encode() in notify.recv(200)
            yield process
            process.send_signal(signal.SIGTERM)


def test_serve_becomes_the_kernel_and_stop_ends_it(served: Any, folder: Path) -> None:
    with Client(f"ipc://{folder}/run/kernel.sock"):
        pass
    for expected in (0, 1):
        stopped = subprocess.run(
            [*PROGRAM, "stop", "--json"], env=environment(folder), capture_output=True, text=True, check=False
        )
        assert stopped.returncode == expected
        if expected == 0:
            assert f'"pid": {served.pid}' in stopped.stdout
            assert served.wait(30) == 0
    assert "no kernel answers" in stopped.stderr


def test_serve_hands_the_address_of_the_gateway_to_the_kernel(
    llmos: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    became: list[str] = []
    monkeypatch.setattr(os, "execv", lambda _program, argv: became.extend(argv))
    llmos("serve --http 127.0.0.1:1")
    assert became[3:] == ["llmos.kernel", "--http", "127.0.0.1:1"]
    assert llmos("serve --http nowhere").status == 2


def test_drivers_are_restarted(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with boot(drivers=["null0"], home=folder) as system:
        monkeypatch.setenv("LLMOS_RUNTIME_DIR", system.stat().fields["runtime"])
        before = system.find("driver", "null0").fields["pid"]
        assert main(["driver", "restart", "null0"]) == 0
        assert "restart is under way" in capsys.readouterr().out
        while system.find("driver", "null0").fields["pid"] in (0, before):
            pass
        assert main(["driver", "restart", "nothing"]) == 1


def test_driver_check_runs_the_conformance_kit(kernel: Any) -> None:
    checked = subprocess.run(
        [*PROGRAM, "driver", "check", "no-such-driver"], capture_output=True, text=True, check=False
    )
    assert checked.returncode != 0 and "no-such-driver" in checked.stdout + checked.stderr


def test_doctor_looks_at_packages_kernel_and_places(llmos: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    ran = llmos("doctor")
    assert "kernel" in ran.out and "shared memory" in ran.out
    findings = {finding["check"]: finding for finding in llmos("doctor --json").json}
    assert findings["kernel"]["ok"] and "null0 ready" in findings["kernel"]["text"]
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(folder))
    assert "none is running" in llmos("doctor").out


def test_bench_measures_calls(llmos: Any) -> None:
    assert set(llmos("bench --json").json) == {"null call p50", "null call p99"}
    assert "make bench" in llmos("bench ipc").out
    assert llmos("bench nothing").status == 1


def test_help(llmos: Any) -> None:
    assert "load MODEL" in llmos("help").out
    assert "usage: llmos load" in llmos("help load").out
    assert "SYNOPSIS" in llmos("help infer").out
    ran = llmos("help infr")
    assert ran.status == 1 and "did you mean infer" in ran.err

"""serve, stop, driver, doctor, help: with real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.syscalls.types import Advice, Alert
from llmos.userland import boot
from llmos.userland.cli.commands import system as commands
from llmos.userland.cli.main import main
from llmos.userland.cli.out import Out
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
    became.clear()
    llmos("serve --home ~/models --runtime /run/x")
    assert became[3:] == ["llmos.kernel", "--home", str(Path("~/models").expanduser()), "--runtime", "/run/x"]
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


def test_doctor_tells_advice_and_alerts_with_their_numbers(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = Advice(
        code="pin", about="m-1", name="fox", text="fox comes and goes", evidence={"evictions": 3, "reload_s": 2.0},
        gain={"seconds": -6.0}, action="llmos pin fox",
    )  # fmt: skip
    alert = Alert(rule="hot", about="", severity="error", text="queue is 12", value=12, limit=10, since=1.0)
    monkeypatch.setattr(commands, "_kernel", lambda cli: ("kernel", True, "here"))
    monkeypatch.setattr(commands, "_gateway", lambda cli, home: [])
    for as_json in (False, True):
        system = SimpleNamespace(advice=lambda: [advice], alerts=lambda: [alert])
        cli: Any = SimpleNamespace(system=system, home=lambda: Path("/"), out=Out(as_json))
        assert commands.doctor(cli, Namespace()) == 1, "an alert is wrong"
    text, _, last = capsys.readouterr().out.partition("advice: fox comes and goes\n")
    assert "alert hot" in text and "queue is 12" in text
    shown, _, plain = last.partition("[")
    assert shown == "  seen: evictions 3, reload 2.0 s\n  expected: seconds -6.0 s\n  do: llmos pin fox\n"
    found = json.loads("[" + plain)[-1]
    assert (found["check"], found["ok"], found["gain"]) == ("advice", True, {"seconds": -6.0})


def test_help(llmos: Any) -> None:
    assert "load MODEL" in llmos("help").out
    assert "usage: llmos load" in llmos("help load").out
    assert "SYNOPSIS" in llmos("help infer").out
    ran = llmos("help infr")
    assert ran.status == 1 and "did you mean infer" in ran.err

"""The gateway as a program: beside a kernel by hand, and as the kernel's own service."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from system.kernel_process import DRIVERS, KernelProcess, eventually, running
from system.model_folder import write_model

from llmos.userland.gateway.__main__ import main, parse, read_settings
from llmos.userland.gateway.core.keys import KeyStore, database
from llmos.userland.gateway.core.settings import BadSettings

PROGRAM = [sys.executable, "-P", "-m", "llmos.userland.gateway"]


def key_in(home: Path) -> str:
    store = KeyStore(database(home))
    text, _ = store.create("first", user="test")
    store.close()
    return text


def gateway_of(kernel: KernelProcess) -> dict[str, object]:
    with kernel.client() as client:
        opened = client.call("open_file", path="/proc/services/gateway")
        found: dict[str, object] = json.loads(
            client.call("read_file", file=opened["handle"], offset=0, count=4096)["data"]
        )
        return found


def test_options_and_settings() -> None:
    options = parse(["--http", "127.0.0.1:1", "--settings", '{"keep_alive": 5, "http": "other:2"}'])
    assert read_settings(options).http == "127.0.0.1:1" and read_settings(options).keep_alive == 5
    assert read_settings(parse([])).http == "127.0.0.1:7411"
    for text in ("{", "[]", '{"kep_alive": 5}'):
        with pytest.raises(BadSettings):
            read_settings(parse(["--settings", text]))


def test_what_is_wrong_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--settings", '{"kep_alive": 5}', "--home", str(folder)]) == 2
    assert "kep_alive" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--http", address, "--home", str(folder), "--runtime", str(folder)]) == 1
    assert "cannot listen" in capsys.readouterr().err
    assert main(["--http", "127.0.0.1:0", "--home", str(folder), "--parent", str(2**22 + 1)]) == 2


def test_the_kernel_starts_it_and_it_ends_with_the_kernel(folder: Path) -> None:
    write_model(folder / "home/models/null")
    config = "[gateway.config]\nkeep_alive = 7\n"
    with running(folder, config, drivers=DRIVERS, options=("--http", "127.0.0.1:0")) as kernel:
        eventually(kernel, lambda: gateway_of(kernel)["state"] == "running", lambda: gateway_of(kernel))
        eventually(kernel, lambda: "no keys yet" in kernel.said(), kernel.said)
        shown = gateway_of(kernel)
        assert f"the gateway listens at {shown['url']}" in kernel.said() and "llmos keys create" in kernel.said()
        with kernel.client() as client:
            client.await_driver("ready")
            assert client.call("stat_object", handle=client.system)["fields"]["gateway"] == shown["url"]
        headers = {"Authorization": f"Bearer {key_in(kernel.home)}"}
        with httpx2.Client(base_url=str(shown["url"]), headers=headers, timeout=30) as http:
            body = {"model": "null", "messages": [{"role": "user", "content": "hi"}]}
            assert http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"] == "hi"
        environ = {**os.environ, "LLMOS_RUNTIME_DIR": str(kernel.runtime), "LLMOS_HOME": str(kernel.home)}
        doctor = [sys.executable, "-P", "-m", "llmos.userland.cli", "doctor", "--json"]
        told = subprocess.run(doctor, env=environ, capture_output=True, text=True, check=False).stdout
        (row,) = (found for found in json.loads(told) if found["check"] == "gateway")
        assert row["ok"] and row["text"] == f"{shown['url']}, 1 key"
        with kernel.client() as client:
            (model,) = client.call("list_objects", system=client.system, kind="model")
            assert model["fields"]["keep_alive"] == 7
        os.kill(int(str(shown["pid"])), signal.SIGKILL)
        again = {"running"}
        eventually(
            kernel,
            lambda: gateway_of(kernel)["state"] in again and gateway_of(kernel)["restarts"] == 1,
            lambda: gateway_of(kernel),
        )


def test_by_hand_it_ends_with_its_parent_and_by_a_signal(folder: Path) -> None:
    parent = subprocess.Popen(["sleep", "600"])
    common = [*PROGRAM, "--home", str(folder), "--runtime", str(folder)]
    ends_with_parent = subprocess.Popen(
        [*common, "--http", f"unix:{folder}/a.sock", "--parent", str(parent.pid), "--ready-fd", "1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    by_signal = subprocess.Popen(
        [*common, "--http", "127.0.0.1:0", "--ready-fd", "1"], stdout=subprocess.PIPE, text=True
    )
    for program in (ends_with_parent, by_signal):
        assert program.stdout is not None
        assert program.stdout.readline().startswith("READY ")
    parent.kill()
    parent.wait()
    assert ends_with_parent.wait(30) == 0 and not (folder / "a.sock").exists()
    by_signal.send_signal(signal.SIGINT)
    assert by_signal.wait(30) == 0
    for program in (ends_with_parent, by_signal):
        assert program.stdout is not None
        program.stdout.close()

"""`python -m llmos.kernel`: options, lock, signals, readiness. Real daemons: `system/test_daemon.py`."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from llmos.kernel import __main__ as module
from llmos.kernel.__main__ import (
    Signals, activation_fd, announce, locked, main, open_standard_files, parse, read_config, watch_parent,
)  # fmt: skip
from llmos.kernel.config import KernelConfig
from llmos.kernel.settings import ConfigError

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The process gets its umask and signal handlers back."""
    umask = os.umask(0o077)
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    os.umask(umask)
    for number, handler in before.items():
        signal.signal(number, handler)


def options(folder: Path, *more: str) -> argparse.Namespace:
    return parse(["--runtime", str(folder / "run"), "--home", str(folder / "home"), "--drivers", "", *more])


def config_of(folder: Path, *more: str) -> KernelConfig:
    return read_config(options(folder, *more))


@pytest.fixture
def ended() -> Iterator[int]:
    """The pid of a process that has ended and was not waited for yet."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def run(folder: Path, *more: str) -> int:
    return main(["--runtime", str(folder / "run"), "--home", str(folder / "home"), "--drivers", "", *more])


# ---- options


def test_options_go_over_the_file(folder: Path) -> None:
    file = folder / "my.toml"
    file.write_text('[drivers]\nload = ["cpu0"]\n[limits]\ndrain_s = 3\n')
    config = read_config(parse(["--config", str(file), "--runtime", str(folder), "--drivers", "a,,b", "--shared"]))
    assert config.drivers.load == ["a", "b"] and config.limits.drain_s == 3 and config.listen.shared
    assert read_config(parse(["--config", str(file)])).drivers.load == ["cpu0"]
    assert read_config(parse(["--config", str(file), "--http", "unix:/x"])).gateway.http == "unix:/x"


def test_bad_usage_is_status_2() -> None:
    with pytest.raises(SystemExit) as end:
        main(["--nonsense"])
    assert end.value.code == 2


def test_a_bad_configuration_is_status_1_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.toml").write_text("nonsense = 1\n")
    assert run(folder, "--config", str(folder / "bad.toml")) == 1
    assert capsys.readouterr().err.startswith("llmos: unknown key nonsense")


def test_a_driver_that_is_asked_for_and_not_there_is_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--drivers", "models,null1") == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("llmos: no package announces a driver 'null1' (")


def test_a_gateway_that_cannot_listen_is_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run(folder, "--http", address) == 1
    assert f"--http {address}" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--home", "--runtime"])
def test_a_folder_that_cannot_be_made_is_status_1(
    folder: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, flag, "/proc/nowhere") == 1
    said = capsys.readouterr().err
    assert said.startswith("llmos: the folder /proc/nowhere") and "No such file" in said and flag in said


def test_it_is_a_program_and_closed_standard_files_do_no_harm(folder: Path) -> None:
    command = f"exec {sys.executable} -P -m llmos.kernel --config {folder}/none.toml <&-"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "none.toml does not exist" in found.stderr


def test_a_closed_standard_file_is_opened_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stat, opened = os.fstat, list[tuple[object, ...]]()

    def closed(number: int) -> os.stat_result:
        if number == 0:
            raise OSError("bad file descriptor")
        return stat(number)

    monkeypatch.setattr(module.os, "fstat", closed)
    monkeypatch.setattr(module.os, "open", lambda *given: opened.append(given))
    open_standard_files()
    assert opened == [(os.devnull, os.O_RDWR)]


# ---- the lock


def test_the_runtime_folder_is_held_by_one(folder: Path) -> None:
    config = config_of(folder)
    with locked(config):
        assert (config.paths.runtime / "kernel.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(ConfigError, match=f"pid {os.getpid()}") as error, locked(config):
            pass
        assert "llmos stop" in str(error.value)
    with locked(config):
        pass


def test_an_old_socket_is_removed_but_not_the_service_managers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(folder)
    config.paths.runtime.mkdir()
    for activated in (True, False):
        config.paths.socket.touch()
        monkeypatch.setattr(module, "activation_fd", lambda activated=activated: 3 if activated else None)
        with locked(config):
            assert config.paths.socket.exists() is activated


def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    config = msgspec.structs.replace(config_of(folder), uid=os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to another user"), locked(config):
        pass


@pytest.mark.parametrize(("more", "mode"), [((), 0o700), (("--shared",), 0o711)])
def test_the_folder_is_as_open_as_it_must_be(folder: Path, more: tuple[str, ...], mode: int) -> None:
    config = config_of(folder, *more)
    with locked(config):
        assert config.paths.runtime.stat().st_mode & 0o777 == mode


# ---- service managers


def test_a_socket_is_taken_over_only_when_it_is_meant_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    assert activation_fd() is None
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert activation_fd() is None
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert activation_fd() == 3
    monkeypatch.setenv("LISTEN_PID", "1")
    assert activation_fd() is None


def test_readiness_is_announced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        announce(write)
        assert manager.recv(100).decode().split("\n") == ["READY=1", f"MAINPID={os.getpid()}"]
    assert os.read(read, 100) == f"READY {os.getpid()}\n".encode()
    os.close(read)
    announce(None)


def test_nobody_needs_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    read, write = os.pipe()
    os.close(read)
    announce(write)
    with pytest.raises(OSError):
        os.fstat(write)


# ---- signals


class Called:
    """A server that notes what it is asked."""

    def __init__(self) -> None:
        self.stopping = False
        self.done: list[str] = []
        self.callback: Callable[[], None] = lambda: None
        self.kernel = self

    def watch(self, _fd: int, callback: Callable[[], None]) -> None:
        self.callback = callback

    def unwatch(self, _fd: int) -> None:
        self.done.append("unwatch")

    def stop(self, _grace: float = 0.0) -> None:
        self.stopping = True
        self.done.append("stop")

    def hurry(self) -> None:
        self.done.append("hurry")

    def reload(self, config: KernelConfig) -> None:
        self.done.append(f"reload {config.limits.drain_s:g}")

    def log(self, _unit: str, text: str, level: str) -> None:
        self.done.append(f"{level}: {text}")


def test_signals_stop_hurry_and_reload(folder: Path) -> None:
    server = Called()
    file = folder / "home/config.toml"
    file.parent.mkdir()
    signals = Signals(server, options(folder))  # type: ignore[arg-type]
    for text in ("[limits]\ndrain_s = 7\n", "nonsense = 1\n"):
        file.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)
        server.callback()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
        server.callback()
    signals.close()
    assert [line[:32] for line in server.done] == [
        "reload 7", "error: the configuration was not", "stop", "hurry", "unwatch"
    ]  # fmt: skip


def test_a_parent_must_exist() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(ConfigError, match="no such process"):
        watch_parent(Called(), gone.pid)  # type: ignore[arg-type]


def test_the_end_of_the_parent_stops_the_kernel(ended: int) -> None:
    server = Called()
    fd = watch_parent(server, ended)  # type: ignore[arg-type]
    server.callback()
    assert server.done == ["unwatch", "stop"]
    os.close(fd)


# ---- all of it


def test_the_kernel_runs_until_its_parent_ends_and_leaves_nothing(folder: Path, ended: int) -> None:
    read, write = os.pipe()
    assert run(folder, "--parent", str(ended), "--ready-fd", str(write)) == 0
    assert os.read(read, 100).startswith(b"READY ")
    os.close(read)
    assert [path.name for path in (folder / "run").iterdir()] == ["kernel.lock"]
    assert {path.name for path in (folder / "home").iterdir()} >= {"models", "files", "journal.db"}


def test_a_parent_that_is_gone_is_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert run(folder, "--parent", str(gone.pid)) == 1
    assert "there is no such process" in capsys.readouterr().err


def test_a_socket_of_the_service_manager_stays(folder: Path, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "run/kernel.sock"))
    listener.listen()
    fd = listener.detach()
    monkeypatch.setattr(module, "activation_fd", lambda: fd)
    assert run(folder, "--parent", str(ended)) == 0
    assert (folder / "run/kernel.sock").exists()


def test_without_a_parent_a_signal_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "announce", lambda _fd: os.kill(os.getpid(), signal.SIGTERM))
    assert run(folder) == 0

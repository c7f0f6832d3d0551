"""Private kernels leave nothing: not at the end, not after an exception, not after kill -9."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llmos.userland.client import Client
from llmos.userland.objects import System
from llmos.userland.private import BootFailed, PrivateKernel, sweep

DRIVERS = ["null0"]


def ours() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("llmos-boot-*"))


def memory() -> list[Path]:
    return list(Path(os.environ.get("LLMOS_SHM_DIR", "/dev/shm")).glob("llmos-boot-*"))


def test_stopping_ends_the_process_and_removes_its_folder(folder: Path) -> None:
    kernel = PrivateKernel(DRIVERS, home=folder)
    assert ours() == [kernel.folder] and (kernel.folder / "kernel.sock").is_socket()
    watch = os.pidfd_open(kernel.pid)
    kernel.stop()
    kernel.stop()
    os.close(watch)
    assert ours() == memory() == [] and not Path(f"/proc/{kernel.pid}").exists()


def test_a_killed_kernel_leaves_nothing_either(folder: Path) -> None:
    kernel = PrivateKernel(DRIVERS, home=folder)
    with Client(kernel.address) as client:
        System(client).buffer(1 << 20)
        assert any(path.is_file() for found in memory() for path in found.rglob("*"))
        os.kill(kernel.pid, signal.SIGKILL)
    kernel.stop()
    assert ours() == memory() == []


def test_a_kernel_that_does_not_start_says_why(folder: Path) -> None:
    (folder / "bad.toml").write_text("nonsense = 1\n")
    with pytest.raises(BootFailed, match=r"ended at once with status 1.*\n.*nonsense"):
        PrivateKernel(DRIVERS, config=folder / "bad.toml", home=folder)
    assert ours() == []


def test_how_a_kernel_ended_and_what_it_said_last(folder: Path) -> None:
    kernel = PrivateKernel(DRIVERS, home=folder)
    os.write(kernel._log.fileno(), b"".join(b"<6>line %d\n" % number for number in range(1000)))
    kernel_ends(kernel, signal.SIGTERM)
    words = kernel.last_words()
    assert words.startswith("it ended with status 0. It said:\n") and len(words) < 2100
    assert "\nline 999\n" in words and "line 1\n" not in words and "<6>" not in words
    assert re.fullmatch(r"line \d{3}", words.splitlines()[1]), "the first line is whole"
    kernel.stop()
    assert kernel.last_words() == "it was stopped"


def test_a_kernel_that_lives_but_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.userland.private._ENDING_S", 0.0)
    kernel = PrivateKernel(DRIVERS, home=folder)
    assert kernel.last_words().startswith("it still runs but does not answer. It said:\n")
    kernel.stop()


def kernel_ends(kernel: PrivateKernel, number: int) -> None:
    watch = os.pidfd_open(kernel.pid)
    os.kill(kernel.pid, number)
    assert select.select([watch], [], [], 30)[0]
    os.close(watch)


def test_a_killed_program_leaves_nothing(folder: Path) -> None:
    script = (
        "import sys, signal\n"
        "from llmos.userland.private import PrivateKernel\n"
        f"kernel = PrivateKernel({DRIVERS!r}, home={str(folder)!r})\n"
        "print(kernel.pid, kernel._shell.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        watches = [os.pidfd_open(pid) for pid in pids]
        (runtime,) = ours()
        program.send_signal(signal.SIGKILL)
        program.wait()
    for watch in watches:
        assert select.select([watch], [], [], 30)[0], "it still runs"
        os.close(watch)
    assert not runtime.exists() and memory() == []


def test_a_program_that_ends_without_stopping_its_kernel_ends_it_too(folder: Path) -> None:
    script = (
        "from llmos.userland.private import PrivateKernel\n"
        f"kernel = PrivateKernel({DRIVERS!r}, home={str(folder)!r})\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert ours() == []


def test_what_was_left_behind_is_swept_and_what_is_in_use_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = Path(tempfile.gettempdir(), f"llmos-boot-{gone.pid}-abc")
    used = Path(tempfile.gettempdir(), f"llmos-boot-{os.getpid()}-abc")
    for path in (left, used):
        path.mkdir()
    sweep()
    assert not left.exists() and used.exists()
    used.rmdir()

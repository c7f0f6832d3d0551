"""Each leak detector sees a planted leak, and the fixture turns it into a failure of the test that leaked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest

SLEEP = "import time; time.sleep(600)"


@contextlib.contextmanager
def process() -> Iterator[str]:
    child = subprocess.Popen([sys.executable, "-c", SLEEP])
    yield f"process {child.pid}"
    child.kill()
    child.wait()


@contextlib.contextmanager
def zombie() -> Iterator[str]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield f"process {child.pid}"
    child.wait()


@contextlib.contextmanager
def orphan() -> Iterator[str]:
    start = f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {SLEEP!r}], stdout=s.DEVNULL).pid)"
    done = subprocess.run([sys.executable, "-c", start], stdout=subprocess.PIPE, check=True, text=True)
    pid = int(done.stdout)
    watch = os.pidfd_open(pid)
    yield f"process {pid}"
    os.kill(pid, signal.SIGKILL)
    os.close(watch)


@contextlib.contextmanager
def thread() -> Iterator[str]:
    stop = threading.Event()
    waiting = threading.Thread(target=stop.wait, name="planted", daemon=True)
    waiting.start()
    yield f"thread {waiting.ident}: planted"
    stop.set()
    waiting.join()


@contextlib.contextmanager
def open_pipe() -> Iterator[str]:
    reader, writer = os.pipe()
    yield f"descriptor {reader} pipe:"
    os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def open_socket() -> Iterator[str]:
    with socket.socket() as planted:
        yield f"descriptor {planted.fileno()} socket:"


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        yield f"file {path}"


@contextlib.contextmanager
def socket_file() -> Iterator[str]:
    path = Path(os.environ["LLMOS_HOME"], "planted.sock")
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(path))
    yield f"file {path}: socket"
    path.unlink()


@contextlib.contextmanager
def buffers_of_a_kernel() -> Iterator[str]:
    path = Path(os.environ["LLMOS_SHM_DIR"], "planted")
    path.mkdir()
    yield f"file {path}"
    path.rmdir()


PLANTS = [process, zombie, orphan, thread, open_pipe, open_socket, temporary_folder, socket_file, buffers_of_a_kernel]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_detector_sees_the_leak_and_its_end(plant: contextlib.AbstractContextManager[str]) -> None:
    before = leaks.look()
    with plant() as expected:  # type: ignore[operator]
        found = leaks.left_since(before, patience=0)
        assert any(line.startswith(expected) for line in found), found
    assert leaks.left_since(before) == []


def test_the_fixture_fails_the_test_that_leaks(tmp_path: Path, root: Path) -> None:
    (tmp_path / "test_leaky.py").write_text("import os\ndef test_leaky(): os.pipe()\ndef test_clean(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "leaks", "-p", "no:cacheprovider", "-q", "test_leaky.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root / "tests"), "LLMOS_LEAK_PATIENCE": "0"},
        capture_output=True,
        text=True,
    )
    assert "2 passed, 1 error" in done.stdout, done.stdout
    assert "descriptor" in done.stdout


def test_what_ends_by_itself_in_time_is_no_leak() -> None:
    before = leaks.look()
    child = subprocess.Popen([sys.executable, "-c", ""])
    waiter = threading.Thread(target=child.wait)
    waiter.start()
    assert leaks.left_since(before) == []
    waiter.join()

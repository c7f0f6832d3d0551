"""A driver that answers when nobody waits any more: what it made for the request is given back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llmos.syscalls.errors import TimedOut
from system.kernel_process import KernelProcess, eventually
from system.model_folder import write_model
from system.raw_client import RawClient


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A host that does nothing for the time of the block; it is not noticed as stuck in so short a time."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def held(pid: int, folder: Path) -> list[str]:
    """Files below a folder that a process has open."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists()]
    return [str(link) for link in links if link.is_relative_to(folder)]


@pytest.fixture
def model(shared: RawClient) -> Iterator[int]:
    model = shared.load("null")
    yield model
    shared.call("unload_model", model=model)


def test_a_conversation_that_was_opened_too_late_is_dropped(
    shared_kernel: KernelProcess, shared: RawClient, model: int
) -> None:
    with stopped(shared.host()):
        number = shared.send_soon("open_context", 0.1, model=model)
        assert isinstance(shared.wait(number).error, TimedOut)
    shared.infer(model, "behind it")
    eventually(shared_kernel, lambda: b'"kv"' not in shared.read("/sys/memory"), lambda: shared.read("/sys/memory"))
    assert shared.names("/proc/contexts") == []


@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_file_that_was_opened_too_late_is_closed(
    shared_kernel: KernelProcess, shared: RawClient, mode: str
) -> None:
    folder = shared_kernel.home / "files"
    (folder / "note").write_text("note")
    host = shared.host("files")
    with stopped(host):
        number = shared.send_soon("open_file", 0.1, path="/home/note", mode=mode)
        assert isinstance(shared.wait(number).error, TimedOut)
    shared.call("stat_path", path="/home/note")
    eventually(shared_kernel, lambda: held(host, folder) == [], lambda: held(host, folder))
    assert (folder / "note").read_text() == "note"
    assert list((folder / ".llmos/scratch").iterdir()) == [] if mode == "w" else True


def test_a_file_that_is_published_too_late_is_published(shared_kernel: KernelProcess, shared: RawClient) -> None:
    file = shared.call("open_file", path="/home/late", mode="w")["handle"]
    shared.call("write_file", file=file, offset=0, data=b"late")
    with stopped(shared.host("files")):
        assert isinstance(shared.wait(shared.send_soon("close_handle", 0.1, handle=file)).error, TimedOut)
    shared.call("stat_path", path="/home")
    assert shared.read("/home/late") == b"late"


def test_a_model_that_was_located_too_late_is_released(shared_kernel: KernelProcess, shared: RawClient) -> None:
    folder = write_model(shared_kernel.models / "late")
    host = shared.host("models")
    with stopped(host):
        number = shared.send_soon("load_model", 0.1, path="/models/late", device=shared.grants["null0"])
        assert isinstance(shared.wait(number).error, TimedOut)
    shared.call("stat_path", path="/models/late")
    eventually(shared_kernel, lambda: held(host, folder) == [], lambda: held(host, folder))
    assert shared.names("/proc/models") == []


def test_a_load_that_nobody_waits_for_ends_well(shared_kernel: KernelProcess, shared: RawClient) -> None:
    with stopped(shared.host()):
        number = shared.send_soon("load_model", 0.1, path="/models/null", device=shared.grants["null0"])
        assert isinstance(shared.wait(number).error, TimedOut)
    model = shared.load("null")
    assert shared.infer(model, "x")["choices"][0]["text"] == "x"
    shared.call("unload_model", model=model)


def test_a_read_into_a_buffer_that_ends_too_late_harms_no_later_buffer(
    shared_kernel: KernelProcess, shared: RawClient
) -> None:
    (shared_kernel.home / "files/large").write_bytes(b"x" * 200_000)
    file = shared.call("open_file", path="/home/large")["handle"]
    with stopped(shared.host("files")):
        number = shared.send_soon("read_file", 0.1, file=file, offset=0, count=200_000)
        assert isinstance(shared.wait(number).error, TimedOut)
        mine = shared.call("alloc_buffer", system=shared.system, bytes=200_000)
        Path(mine["path"]).write_bytes(b"mine".ljust(200_704))
    shared.call("stat_path", path="/home")
    assert Path(mine["path"]).read_bytes().startswith(b"mine")
    for handle in (mine["handle"], file):
        shared.call("close_handle", handle=handle)


def test_a_large_read_arrives_in_a_buffer(shared_kernel: KernelProcess, shared: RawClient) -> None:
    (shared_kernel.home / "files/large").write_bytes(bytes(range(256)) * 1000)
    file = shared.call("open_file", path="/home/large")["handle"]
    data = shared.call("read_file", file=file, offset=256, count=200_000)
    assert data["data"]["length"] == 200_000
    assert Path(data["path"]).read_bytes()[:200_000] == (bytes(range(256)) * 1000)[256:200_256]
    for handle in (data["data"]["buffer"], file):
        shared.call("close_handle", handle=handle)

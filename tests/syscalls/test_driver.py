"""The kernel-host table: what a kernel asks of a host."""

from __future__ import annotations

import pytest
from llmos.syscalls import driver
from llmos.syscalls.driver import HOST_CALLS, HostLoad, Work
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, check

DEVICE_CALLS = {
    "plan", "load", "unload", "sleep", "wake", "swap", "adapter", "submit", "preempt", "credit", "set_shares",
    "set_budget", "open_context", "drop_context", "lease", "end_lease", "tune", "transform", "checkpoint", "pause",
    "resume", "inspect",
}  # fmt: skip
FILE_CALLS = {
    "open", "read", "write", "close", "list", "stat", "remove", "search", "locate", "release", "stage", "commit",
    "fs_control",
}  # fmt: skip
BOTH = {"start", "cancel", "stats", "drain", "stop"}


def test_the_calls_of_the_interface() -> None:
    assert set(HOST_CALLS) == DEVICE_CALLS | FILE_CALLS | BOTH


def test_the_two_tables_share_no_class() -> None:
    assert not {spec.cls for spec in HOST_CALLS.values()} & {spec.cls for spec in SYSCALLS.values()}


@pytest.mark.parametrize("spec", HOST_CALLS.values(), ids=lambda spec: spec.name)
def test_a_host_sees_no_handles(spec: object) -> None:
    assert isinstance(spec, type(HOST_CALLS["load"]))
    assert spec.handles == ()


def test_only_inference_streams() -> None:
    assert [spec.name for spec in HOST_CALLS.values() if spec.streams] == ["submit"]


def test_a_load_carries_the_files_of_the_model() -> None:
    located = {
        "path": "/models/tiny",
        "version": "1",
        "files": [{"name": "config.json", "path": "/srv/tiny/config.json", "bytes": 5}],
    }
    load = check(HOST_CALLS["load"], {"id": "m1", "model": located})
    assert isinstance(load, HostLoad)
    assert load.model.files[0] == driver.LocalFile(name="config.json", path="/srv/tiny/config.json", bytes=5)
    assert load.options.dtype == "auto"


def test_work_without_an_input_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"'work\.input' is missing"):
        check(HOST_CALLS["submit"], {"work": {"id": "r1", "model": "m1"}})
    body = {"id": "r1", "model": "m1", "input": {"type": "tokens", "ids": [1]}}
    work = check(HOST_CALLS["submit"], {"work": body}).work
    assert isinstance(work, Work)
    assert (work.stream, work.embed, work.buffers) == (False, None, {})

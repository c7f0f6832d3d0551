"""A kernel that has served many clients is no larger than one that has served a few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from system.kernel_process import ALL, KernelProcess, running
from system.model_folder import write_model
from system.raw_client import RawClient

ROUNDS = 12
ALLOWED = 1 << 20
"""Bytes between the middle and the end. As much is a leak of 1 KiB for each program, of 700 bytes for each session, of
100 for each request."""


def resident(kernel: KernelProcess) -> int:
    status = Path(f"/proc/{kernel.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def sessions(kernel: KernelProcess, client: RawClient) -> None:
    for _ in range(300):
        with kernel.client() as other:
            other.call("list_objects", system=other.system, kind="session")


def handles(kernel: KernelProcess, client: RawClient) -> None:
    for _ in range(500):
        copy = client.call("dup_handle", handle=client.system, rights=["read"])["handle"]
        lease = client.call("alloc_gpu", device=client.grants["null0"], bytes=10)["handle"]
        buffer = client.call("alloc_buffer", system=client.system, bytes=10)["handle"]
        for handle in (copy, lease, buffer):
            client.call("close_handle", handle=handle)


def requests(kernel: KernelProcess, client: RawClient) -> None:
    model = client.load("null")
    for number in range(500):
        client.infer(model, "x")
        client.wait(client.start(model, "abc", "infer_stream", call_credit=1))
        client.wait(client.start(model, "y", call_key=f"key {number}"))
        client.error("stat_object", handle=10**6 + number)
        client.answers.clear()
    client.call("unload_model", model=model)


def models(kernel: KernelProcess, client: RawClient) -> None:
    for _ in range(100):
        model = client.load("null")
        context = client.call("open_context", model=model)["handle"]
        client.call("close_handle", handle=context)
        client.call("unload_model", model=model)


def files(kernel: KernelProcess, client: RawClient) -> None:
    for _ in range(100):
        file = client.call("open_file", path="/home/note", mode="w")["handle"]
        client.call("write_file", file=file, offset=0, data=b"note")
        client.call("close_handle", handle=file)
        client.read("/home/note")
        client.read("/sys/metrics")


def programs(kernel: KernelProcess, client: RawClient) -> None:
    for _ in range(200):  # so that those which the kernel remembers after their end are all there by the middle
        task = client.call("spawn_program", system=client.system, argv=["true"])["handle"]
        client.call("wait_task", task=task)
        client.call("close_handle", handle=task)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("work", [sessions, handles, requests, models, files, programs])
def test_work_leaves_no_memory_behind(folder: Path, work: Callable[[KernelProcess, RawClient], None]) -> None:
    write_model(folder / "home/models/null")
    config = '[journal]\nring = 16\npath = "none"\nlevel = "error"\n'
    with running(folder, config, drivers=ALL) as kernel, kernel.client() as client:
        client.await_driver("ready")
        sizes = []
        for _ in range(ROUNDS):
            work(kernel, client)
            client.answers.clear()
            sizes.append(resident(kernel))
        assert sizes[-1] - sizes[ROUNDS // 2] < ALLOWED, sizes

"""A kernel that runs out of file descriptors refuses what it cannot do and goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from llmos.syscalls.errors import LlmosError, NoResources
from system import zmtp
from system.kernel_process import COMMAND, KernelProcess, eventually, running
from system.model_folder import write_model
from system.puppet import puppet

LIMIT = 64
FEW = ["sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", *COMMAND]


def used(kernel: KernelProcess) -> int:
    return len(list(Path(f"/proc/{kernel.pid}/fd").iterdir()))


def fill(kernel: KernelProcess, stack: contextlib.ExitStack, spare: int) -> None:
    """Open connections until the kernel has so many descriptors left."""
    while (before := used(kernel)) < LIMIT - spare:
        stack.enter_context(zmtp.connected(kernel.socket))
        eventually(kernel, lambda before=before: used(kernel) > before, lambda: used(kernel))


def test_nothing_that_needs_a_descriptor_ends_the_kernel(folder: Path) -> None:
    with running(folder, drivers="", command=FEW) as kernel, kernel.client() as client:
        with contextlib.ExitStack() as stack:
            fill(kernel, stack, spare=0)
            assert isinstance(client.error("alloc_buffer", system=client.system, bytes=10), NoResources)
            assert isinstance(client.error("spawn_program", system=client.system, argv=["true"]), LlmosError)
        eventually(kernel, lambda: used(kernel) < LIMIT - 10, lambda: used(kernel))
        assert client.call("alloc_buffer", system=client.system, bytes=10)
        assert client.call("spawn_program", system=client.system, argv=["true"])


def test_a_process_that_cannot_be_watched_is_refused(folder: Path) -> None:
    with running(folder, drivers="", command=FEW) as kernel, kernel.client() as client:
        with contextlib.ExitStack() as stack:
            fill(kernel, stack, spare=1)
            with puppet(kernel.socket) as other, pytest.raises(NoResources):
                other.hello()
        client.quiet()


def test_a_host_that_cannot_be_started_can_be_later(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, command=FEW) as kernel, kernel.client() as client:
        client.await_driver("ready")
        model = client.load("null")
        with contextlib.ExitStack() as stack:
            fill(kernel, stack, spare=0)
            with client.driver_goes_through("backoff"):
                client.wait(client.start(model, "!crash @step 2; xy", "infer_stream"))
            driver = client.driver()
            assert "could not be started" in driver["fields"]["cause"]
        eventually(kernel, lambda: used(kernel) < LIMIT - 10, lambda: used(kernel))
        if client.driver()["state"] in ("backoff", "failed"):
            client.call("control_object", handle=driver["handle"], action="restart")
        client.await_driver("ready")
        assert client.infer(model, "back")["choices"][0]["text"] == "back"


def test_the_kernel_takes_all_descriptors_it_may_have(folder: Path) -> None:
    command = ["sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh", *COMMAND]
    with running(folder, drivers="", command=command) as kernel:
        limits = Path(f"/proc/{kernel.pid}/limits").read_text()
        soft, hard = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5]
        assert soft == hard

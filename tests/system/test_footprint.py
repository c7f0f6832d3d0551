"""Each detector of a kernel's footprint sees a planted leak, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from system.footprint import Footprint
from system.kernel_process import KernelProcess
from system.raw_client import RawClient

Plant = AbstractContextManager[str]


@contextmanager
def session(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    with kernel.client("planted") as other:
        yield f"object sessions/{other.session}:"


@contextmanager
def connection(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    with kernel.connection() as other:
        other.error("stat_object", handle=1)
        yield "descriptor socket:"


@contextmanager
def lease(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    lease = client.call("alloc_gpu", device=client.grants["null0"], bytes=12345)
    yield f"ledger row null0 lease {lease['id']} 12345"
    client.call("close_handle", handle=lease["handle"])


@contextmanager
def lease_object(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    lease = client.call("alloc_gpu", device=client.grants["null0"], bytes=1)
    yield f"object leases/{lease['id']}:"
    client.call("close_handle", handle=lease["handle"])


@contextmanager
def buffer(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    with kernel.client("buffer") as other:
        buffer = other.call("alloc_buffer", system=other.system, bytes=100)
        yield f"buffer {buffer['path']}: file"


@contextmanager
def program(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    count = len(kernel.children())
    task = client.call("spawn_program", system=client.system, argv=["sleep", "600"])
    yield f"child {count + 1}: "
    client.call("cancel_task", task=task["handle"], grace_s=0)


@contextmanager
def request(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    with client.watching("lease"):
        yield "request watch_events"


@contextmanager
def context(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    model = client.load("null")
    context = client.call("open_context", model=model)
    yield f"object contexts/{context['id']}"
    client.call("close_handle", handle=context["handle"])
    client.call("unload_model", model=model)


@contextmanager
def runtime_file(kernel: KernelProcess, client: RawClient) -> Iterator[str]:
    path = kernel.runtime / "planted.sock"
    path.touch()
    yield "runtime file planted.sock"
    path.unlink()


PLANTS = [session, connection, lease, lease_object, buffer, program, request, context, runtime_file]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_detector_sees_the_leak_and_its_end(plant: object, shared_kernel: KernelProcess, shared: RawClient) -> None:
    with shared_kernel.client("footprint") as looking:
        footprint = Footprint(shared_kernel, looking)
        assert footprint.left() == []
        with plant(shared_kernel, shared) as expected:  # type: ignore[operator]
            left = footprint.left()
            assert any(line.startswith(expected) for line in left), left
        footprint.gone()


def test_a_kernel_that_was_stopped_leaves_nothing(kernel: KernelProcess, client: RawClient) -> None:
    client.call("alloc_buffer", system=client.system, bytes=100)
    assert kernel.left() != []
    kernel.stop()
    assert kernel.left() == []

"""Bytes that programs hold: leases, buffers, contexts; what policy allows; and nothing left in the ledger."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import BadHandle, NoDeviceMemory, NoResources, OverQuota
from llmos.syscalls.shm import Mapping
from system.footprint import Footprint
from system.kernel_process import ALL, KernelProcess, running
from system.model_folder import write_model
from system.raw_client import RawClient

MIB = 1 << 20
SMALL = "[drivers.null0.config]\nmemory_bytes = 67108864\nslots = 2\n"
"""A device of 64 MiB."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelProcess]:
    folder = tmp_path_factory.mktemp("k")
    write_model(folder / "home/models/null")
    write_model(folder / "home/models/half", size=32 * MIB)
    write_model(folder / "home/models/huge", size=65 * MIB)
    with running(folder, SMALL) as kernel, kernel.client() as client:
        client.await_driver("ready")
        client.await_driver("ready", "models")
        yield kernel


@pytest.fixture
def client(small: KernelProcess) -> Iterator[RawClient]:
    """A session whose test leaves the ledger as it was."""
    with small.client("footprint") as looking:
        footprint = Footprint(small, looking)
        with small.client() as client:
            yield client
        footprint.gone()


def free(client: RawClient) -> int:
    return int(client.call("stat_object", handle=client.grants["null0"])["fields"]["free"])


def lease(client: RawClient, size: int, **body: object) -> dict[str, object]:
    found: dict[str, object] = client.call("alloc_gpu", device=client.grants["null0"], bytes=size, **body)
    return found


def test_a_lease_takes_bytes_and_gives_them_back(client: RawClient) -> None:
    before = free(client)
    held = lease(client, 10 * MIB)
    assert free(client) == before - 10 * MIB
    client.call("close_handle", handle=held["handle"])
    assert free(client) == before


def test_a_shared_lease_is_memory_that_two_programs_write_to(client: RawClient) -> None:
    before = free(client)
    held = lease(client, MIB, share=True)
    assert (held["kind"], free(client)) == ("shm", before - MIB)
    path = Path(str(held["mapping"]))
    with Mapping(path, writable=True) as mapped:
        mapped.view[:4] = b"ping"
        answer = "import sys; file = open(sys.argv[1], 'r+b'); assert file.read(4) == b'ping'; file.write(b'pong')"
        subprocess.run([sys.executable, "-c", answer, str(path)], check=True, timeout=60)
        assert bytes(mapped.view[:8]) == b"pingpong"
    client.call("close_handle", handle=held["handle"])
    assert free(client) == before and not path.exists()


def test_a_lease_ends_by_itself(client: RawClient) -> None:
    before = free(client)
    with client.watching("lease") as events:
        held = lease(client, MIB, ttl_s=0.05)
        client.until(lambda: bool(events.chunks))
    assert events.chunks[0]["about"] == held["id"]
    assert isinstance(client.error("stat_object", handle=held["handle"]), BadHandle)
    assert free(client) == before


def test_more_than_there_is_is_refused_with_the_numbers(client: RawClient) -> None:
    held = lease(client, 60 * MIB)
    error = client.error("alloc_gpu", device=client.grants["null0"], bytes=5 * MIB)
    assert isinstance(error, NoDeviceMemory)
    assert (error.needed, error.free) == (5 * MIB, 4 * MIB)
    assert "lease" in error.by_whom
    assert held["handle"]


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(client: RawClient) -> None:
    error = client.error("load_model", path="/models/huge", device=client.grants["null0"])
    assert isinstance(error, NoDeviceMemory)
    assert error.needed == 65 * MIB
    assert client.names("/proc/models") == []


def test_a_dry_run_says_so_without_loading(client: RawClient) -> None:
    info = client.call("load_model", path="/models/huge", device=client.grants["null0"], options={"dry_run": True})
    assert info["plan"]["fits"] is False
    assert (info["plan"]["needed"], info["plan"]["free"]) == (65 * MIB, 64 * MIB)
    assert client.names("/proc/models") == []


def test_a_lease_is_never_evicted_but_an_idle_model_is(client: RawClient) -> None:
    model = client.load("half")
    held = lease(client, 20 * MIB)
    more = client.wait(client.send("alloc_gpu", device=client.grants["null0"], bytes=20 * MIB))
    if more.error is None:
        assert client.call("stat_object", handle=model)["state"] == "asleep"
        client.call("close_handle", handle=more.value["handle"])
    else:
        assert isinstance(more.error, NoDeviceMemory)
    assert client.call("stat_object", handle=held["handle"])["state"] == "open"
    client.call("close_handle", handle=held["handle"])
    assert client.infer(model, "again")["choices"][0]["text"] == "again"
    client.call("unload_model", model=model)


def test_contexts_take_bytes_and_give_them_back(client: RawClient) -> None:
    model = client.load("null")
    contexts = [client.call("open_context", model=model, max_tokens=1000) for _ in range(3)]
    for context in contexts:
        client.call("close_handle", handle=context["handle"])
    client.call("unload_model", model=model)


def test_a_conversation_goes_on_after_its_model_has_slept(client: RawClient) -> None:
    model = client.load("null")
    context = client.call("open_context", model=model, max_tokens=1000)["handle"]
    said = {"type": "text", "text": "hello"}
    first = client.call("infer", model=model, input=said, context=context)["usage"]
    client.call("control_object", handle=model, action="sleep")
    second = client.call("infer", model=model, input=said, context=context)["usage"]
    assert second["cached_tokens"] == first["prompt_tokens"] + first["new_tokens"] > 0
    client.call("close_handle", handle=context)
    client.call("unload_model", model=model)


# ---- what policy allows


def limited(folder: Path, limits: str) -> str:
    write_model(folder / "home/models/null")
    return f"[policy.uid.{os.getuid()}.limits]\n{limits}\n"


def test_leases_are_limited(folder: Path) -> None:
    config = limited(folder, "lease_bytes = 1000")
    with running(folder, config, drivers="null0") as kernel, kernel.client() as client:
        held = lease(client, 900)
        error = client.error("alloc_gpu", device=client.grants["null0"], bytes=101)
        assert isinstance(error, OverQuota)
        assert (error.what, error.limit) == ("lease_bytes", 1000)
        client.call("close_handle", handle=held["handle"])
        assert lease(client, 1000)


def test_buffers_are_limited(folder: Path) -> None:
    config = limited(folder, "buffer_bytes = 10000")
    with running(folder, config, drivers="") as kernel, kernel.client() as client:
        held = client.call("alloc_buffer", system=client.system, bytes=4096)
        error = client.error("alloc_buffer", system=client.system, bytes=8000)
        assert isinstance(error, OverQuota)
        assert error.what == "buffer_bytes"
        client.call("close_handle", handle=held["handle"])
        assert client.call("alloc_buffer", system=client.system, bytes=8000)


def test_all_buffers_together_are_limited(folder: Path) -> None:
    config = "[limits]\nbuffer_bytes = 10000\n"
    with running(folder, config, drivers="") as kernel, kernel.client() as client:
        assert isinstance(client.error("alloc_buffer", system=client.system, bytes=20000), NoResources)


def test_handles_are_limited_and_what_could_not_be_given_is_not_kept(folder: Path) -> None:
    config = limited(folder, "handles = 40")
    with running(folder, config, drivers=ALL) as kernel, kernel.client() as looking:
        for driver in ("null0", "models", "files"):
            looking.await_driver("ready", driver)
        footprint = Footprint(kernel, looking)
        with kernel.client() as client:
            model = client.load("null")
            error = None
            while error is None:
                error = client.wait(client.send("dup_handle", handle=client.system, rights=["read"])).error
            assert isinstance(error, OverQuota)
            assert (error.what, error.limit) == ("handles", 40)
            for call, body in {
                "alloc_gpu": {"device": client.grants["null0"], "bytes": 1000},
                "alloc_buffer": {"system": client.system, "bytes": 1000},
                "open_context": {"model": model},
                "open_file": {"path": "/home/new", "mode": "w"},
                "mount_fs": {"system": client.system, "path": "/mnt", "filesystem": "files", "source": str(folder)},
                "spawn_program": {"system": client.system, "argv": ["true"]},
                "list_objects": {"system": client.system, "kind": "driver"},
            }.items():
                assert isinstance(client.error(call, **body), OverQuota), call
            assert client.names("/") == ["dev", "home", "models", "proc", "sys"]
            for folder_name in ("/home", "/proc/leases", "/proc/contexts", "/proc/tasks"):
                assert client.names(folder_name) == []
            client.call("unload_model", model=model)
        footprint.gone()


def test_tokens_per_minute_are_limited(folder: Path) -> None:
    config = limited(folder, "tokens_per_minute = 20")
    with running(folder, config) as kernel, kernel.client() as client:
        model = client.load("null")
        assert client.infer(model, "x" * 30)["usage"]["prompt_tokens"] == 30
        error = client.wait(client.start(model, "x")).error
        assert isinstance(error, OverQuota)
        assert error.what == "tokens_per_minute"
        assert error.retry_after_ms > 0
        with kernel.client() as second:
            assert isinstance(second.wait(second.start(second.load("null"), "x")).error, OverQuota)

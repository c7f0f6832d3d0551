"""A new version takes over while requests run: every stream is whole and of one version, whatever the update does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llmos.syscalls.errors import NoDeviceMemory
from system.footprint import Footprint
from system.kernel_process import KernelProcess, eventually
from system.model_folder import write_model, write_versions
from system.raw_client import RawClient

STREAMS = 20
WHOLE = {"ignore_eos": True, "max_tokens": 30}
pytestmark = pytest.mark.usefixtures("footprint")


@pytest.fixture(scope="module", autouse=True)
def versions(shared_kernel: KernelProcess) -> None:
    write_versions(shared_kernel.models / "fox", "1", "2")
    write_model(shared_kernel.models / "fox/versions/0", version="0", order=0, faults=["oom @load"])


@pytest.fixture
def fox(shared: RawClient, footprint: Footprint) -> Iterator[int]:
    """/models/fox@production, which is version 1, loaded."""
    shared.call("control_object", handle=shared.grants["/models"], action="alias",
                options={"name": "fox", "alias": "production", "version": "1"})  # fmt: skip
    model = shared.load("fox@production", name="fox")
    yield model
    shared.wait(shared.send("unload_model", model=model, force=True))


def update(client: RawClient, version: str) -> int:
    """Ask for an update; the number of the call."""
    options = {"name": "fox", "alias": "production", "version": version, "reload": True}
    return client.send("control_object", handle=client.grants["/models"], action="alias", options=options)


def weights(client: RawClient) -> int:
    return client.read("/sys/memory").count(b'"weights"')


def streams(client: RawClient, model: int, count: int) -> list[int]:
    return [client.start(model, "!slow 5; abc", "infer_stream", **WHOLE) for _ in range(count)]


def test_twenty_streams_across_an_update_are_whole_and_of_one_version(
    shared_kernel: KernelProcess, shared: RawClient, fox: int
) -> None:
    before = streams(shared, fox, STREAMS // 2)
    for number in before:
        shared.first_chunk(number)
    updating = update(shared, "2")
    during = streams(shared, fox, STREAMS - len(before))
    report = shared.wait(updating).value["fields"]["report"]
    assert report["reloaded"] == [{"model": "fox", "from": "1", "to": "2"}]
    after = shared.infer(fox, "abc", **WHOLE)
    wanted = after["choices"][0]["text"]
    seen = []
    for number in (*before, *during):
        answer = shared.wait(number)
        value = answer.value
        assert value["choices"][0]["text"] == answer.text == wanted and value["choices"][0]["reason"] == "length"
        seen.append(value["model_version"])
    assert seen[: len(before)] == ["1"] * len(before) and set(seen) <= {"1", "2"}
    assert after["model_version"] == "2"
    eventually(shared_kernel, lambda: weights(shared) == 1, lambda: shared.read("/sys/memory"))


def test_a_broken_version_leaves_the_old_one_serving(shared: RawClient, fox: int) -> None:
    running = streams(shared, fox, 3)
    error = shared.wait(update(shared, "0")).error
    assert isinstance(error, NoDeviceMemory) and "fox still serves 1" in str(error)
    assert [shared.wait(number).value["model_version"] for number in running] == ["1"] * 3
    assert shared.infer(fox, "abc")["model_version"] == "1" and weights(shared) == 1
    assert shared.wait(update(shared, "2")).value["fields"]["report"]["reloaded"][0]["to"] == "2"


def test_a_rollback_goes_back_without_a_pause(shared_kernel: KernelProcess, shared: RawClient) -> None:
    model = shared.load("fox", name="current")
    assert shared.infer(model, "abc")["model_version"] == "2"
    running = streams(shared, model, 5)
    for number in running:
        shared.first_chunk(number)
    options = {"name": "fox", "version": "1", "reload": True}
    info = shared.call("control_object", handle=shared.grants["/models"], action="rollback", options=options)
    assert info["fields"]["report"]["reloaded"] == [{"model": "current", "from": "2", "to": "1"}]
    assert shared.infer(model, "abc")["model_version"] == "1"
    assert [shared.wait(number).value["model_version"] for number in running] == ["2"] * 5
    shared.wait(shared.send("unload_model", model=model, force=True))
    eventually(shared_kernel, lambda: weights(shared) == 0, lambda: shared.read("/sys/memory"))

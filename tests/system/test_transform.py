"""Models made of others by jobs of the kernel: seen whole or not at all, cancelled, killed, paused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored_models import matrices, store, stored
from system.footprint import Footprint
from system.kernel_process import KernelProcess, kill
from system.raw_client import RawClient

SLOW = {"kind": "merge", "method": "ties", "options": {"density": 0.5}}
"""Of the large models: about a second."""


@pytest.fixture(scope="module", autouse=True)
def models(shared_kernel: KernelProcess) -> Iterator[Path]:
    """Two small models and two large ones."""
    folder = shared_kernel.models
    for seed in range(2):
        store(folder / f"small{seed}", matrices(3, seed=seed))
        store(folder / f"large{seed}", matrices(10, 1024, 1024, seed=seed))
    yield folder


def begin(client: RawClient, out: str, *sources: str, **recipe: Any) -> dict[str, Any]:
    paths = [f"/models/{source}" for source in sources]
    task: dict[str, Any] = client.call("transform_model", sources=paths, out=f"/models/{out}", recipe=recipe)
    return task


def ended(client: RawClient, task: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = client.call("wait_task", task=task["handle"])
    return value


def working(client: RawClient, task: dict[str, Any]) -> int:
    """Wait until it has begun to merge, and stop it there; the pid of the worker."""
    with client.watching("task", about=task["id"]) as events:
        client.until(lambda: any(event["fields"].get("stage") == "merge" for event in events.chunks))
        client.call("control_object", handle=task["handle"], action="pause", options={})
    return int(client.call("stat_object", handle=task["handle"])["fields"]["pid"])


def resume(client: RawClient, task: dict[str, Any]) -> None:
    client.call("control_object", handle=task["handle"], action="resume", options={})


def nothing_of(kernel: KernelProcess, client: RawClient, name: str) -> None:
    assert name not in client.names("/models") and not (kernel.models / name).exists()
    assert not list((kernel.models / ".llmos/scratch").glob("*"))


def test_a_merge_is_an_entry_of_the_registry_with_its_parents(
    shared_kernel: KernelProcess, shared: RawClient, footprint: Footprint
) -> None:
    result = ended(shared, begin(shared, "both", "small0@local", "small1", kind="merge", weights=[3.0, 1.0]))
    assert result["state"] == "done", result
    assert (result["value"]["path"], result["value"]["version"]) == ("/models/both", "1")
    parts = [stored(shared_kernel.models / f"small{seed}") for seed in range(2)]
    for name, value in stored(shared_kernel.models / "both/versions/1").items():
        assert (value - (0.75 * parts[0][name] + 0.25 * parts[1][name])).abs().max() < 1e-6
    lineage = shared.call("stat_path", path="/models/both")["fields"]["lineage"]
    assert [entry["stored"] for entry in lineage] == ["/small0@local", "/small1@local"]
    assert {entry["how"] for entry in lineage} == {"merged"}
    again = ended(shared, begin(shared, "both", "small0", "small1", kind="merge"))["value"]["error"]
    assert again["name"] == "Exists" and again["message"].startswith("/models/both exists already")
    shared.call("remove_path", path="/models/both")


def test_a_paused_job_waits_a_cancelled_one_leaves_nothing(
    shared_kernel: KernelProcess, shared: RawClient, footprint: Footprint
) -> None:
    task = begin(shared, "new", "large0", "large1", **SLOW)
    working(shared, task)
    assert shared.call("stat_object", handle=task["handle"])["state"] == "paused"
    assert len(list((shared_kernel.models / ".llmos/scratch").glob("*.lock"))) == 1
    assert "new" not in shared.names("/models")
    assert shared.call("cancel_task", task=task["handle"])["state"] == "cancelled"
    nothing_of(shared_kernel, shared, "new")
    assert ended(shared, task)["state"] == "cancelled"


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_one_job(
    shared_kernel: KernelProcess, shared: RawClient, footprint: Footprint
) -> None:
    task = begin(shared, "new", "large0", "large1", **SLOW)
    other = begin(shared, "other", "small0", "small1", kind="merge")
    kill(working(shared, task))
    result = ended(shared, task)
    assert (result["state"], result["exit"]) == ("failed", -signal.SIGKILL)
    assert result["value"]["error"]["name"] == "DriverFailed"
    assert ended(shared, other)["state"] == "done"
    assert shared.driver("models")["fields"]["restarts"] == 0
    shared.call("remove_path", path="/models/other")
    ended(shared, begin(shared, "small0", "small0", "small1", kind="merge"))  # its start sweeps what was left
    nothing_of(shared_kernel, shared, "new")


def test_an_error_comes_before_the_work_and_says_which_tensor(
    shared_kernel: KernelProcess, shared: RawClient, footprint: Footprint
) -> None:
    error = ended(shared, begin(shared, "new", "small0", "large0", kind="merge"))["value"]["error"]
    assert error["name"] == "BadModel" and "layer.0 has the shape" in error["message"]
    nothing_of(shared_kernel, shared, "new")


@pytest.mark.slow
def test_the_bundled_model_is_quantized_and_tells_what_it_cost(
    shared_kernel: KernelProcess, shared: RawClient, footprint: Footprint
) -> None:
    quant = {"width": 4, "method": "gptq", "group": 64}
    result = ended(shared, begin(shared, "tiny-w4", "tiny", kind="quantize", quant=quant))
    assert result["state"] == "done", result
    metrics = result["value"]["metrics"]
    assert 4 < metrics["bits_per_weight"] < 5.5 and metrics["bytes_after"] < metrics["bytes_before"] / 2.5
    assert metrics["perplexity_after"] < 1.05 * metrics["perplexity_before"]
    fields = shared.call("stat_path", path="/models/tiny-w4")["fields"]
    original = shared.call("stat_path", path="/models/tiny")["fields"]
    assert fields["parameters"] == original["parameters"] and fields["quant"] == "w4-g64"
    assert fields["parents"][0]["how"] == "quantized"
    shared.call("remove_path", path="/models/tiny-w4")

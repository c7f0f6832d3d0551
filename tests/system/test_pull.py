"""Models that are brought by jobs of the kernel: cancelled, killed, paused, two at once, on a full disk."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, hub
from system.footprint import Footprint
from system.hub_kernel import FILES, HALF, kernel_with
from system.kernel_process import KernelProcess, eventually, kill, running, watched
from system.model_folder import write_model
from system.raw_client import RawClient
from system.test_disk import can_mount, small_disk


@pytest.fixture(scope="module")
def hub_of_module() -> Iterator[FakeHub]:
    with hub(FILES) as fake:
        yield fake


@pytest.fixture(scope="module")
def shared_kernel(hub_of_module: FakeHub) -> Iterator[KernelProcess]:
    with kernel_with(hub_of_module) as kernel:
        yield kernel


@pytest.fixture
def fake(hub_of_module: FakeHub) -> Iterator[FakeHub]:
    """A hub that stops in the middle of the largest file until it is told to go on."""
    hub_of_module.holds["tokenizer.json"] = HALF
    hub_of_module.go.clear()
    yield hub_of_module
    hub_of_module.holds.clear()
    hub_of_module.go.set()


def pull(client: RawClient, name: str, source: str = "hf:acme/fox", **options: Any) -> dict[str, Any]:
    recipe = {"kind": "import", "options": options}
    task: dict[str, Any] = client.call("transform_model", sources=[source], out=f"/models/{name}", recipe=recipe)
    return task


def ended(client: RawClient, task: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = client.call("wait_task", task=task["handle"])
    return value


def downloading(client: RawClient, task: dict[str, Any]) -> int:
    """Wait until it has fetched what the hub gives; the pid of the worker."""
    with client.watching("task", about=task["id"]) as events:
        seen = client.call("stat_object", handle=task["handle"])["fields"]["progress"].get("done", 0)
        client.until(lambda: seen >= HALF or any(e["fields"].get("done", 0) >= HALF for e in events.chunks))
    return int(client.call("stat_object", handle=task["handle"])["fields"]["pid"])


def nothing_of(kernel: KernelProcess, client: RawClient, name: str) -> None:
    assert name not in client.names("/models") and not (kernel.models / name).exists()


def test_a_cancelled_download_leaves_nothing_to_see_and_is_taken_up_again(
    shared_kernel: KernelProcess, shared: RawClient, fake: FakeHub, footprint: Footprint
) -> None:
    task = pull(shared, "fox")
    downloading(shared, task)
    assert shared.call("cancel_task", task=task["handle"])["state"] == "cancelled"
    assert ended(shared, task)["state"] == "cancelled"
    nothing_of(shared_kernel, shared, "fox")
    fake.go.set()
    result = ended(shared, pull(shared, "fox"))
    assert (result["state"], result["value"]["version"], result["value"]["files"]) == ("done", "1", 3)
    assert (shared_kernel.models / "fox/versions/1/tokenizer.json").read_bytes() == FILES["tokenizer.json"]
    again = ended(shared, pull(shared, "fox"))["value"]
    assert (again["unchanged"], again["fetched"]) == (True, 0)


def test_a_killed_worker_costs_one_job_and_what_it_had_is_not_fetched_again(
    shared_kernel: KernelProcess, shared: RawClient, fake: FakeHub, footprint: Footprint
) -> None:
    task = pull(shared, "wolf")
    kill(downloading(shared, task))
    result = ended(shared, task)
    assert (result["state"], result["exit"]) == ("failed", -signal.SIGKILL)
    assert result["value"]["error"]["name"] == "DriverFailed"
    nothing_of(shared_kernel, shared, "wolf")
    assert shared.driver("models")["state"] == "ready" and shared.driver("models")["fields"]["restarts"] == 0
    fake.go.set()
    value = ended(shared, pull(shared, "wolf"))["value"]
    assert value["version"] == "1" and value["fetched"] < value["bytes"]
    assert not list((shared_kernel.models / ".llmos/scratch").glob("*"))
    assert [path for path in (shared_kernel.models / ".llmos/partial").iterdir() if path.is_dir()] == []


def test_a_paused_download_waits(
    shared_kernel: KernelProcess, shared: RawClient, fake: FakeHub, footprint: Footprint
) -> None:
    task = pull(shared, "slow")
    pid = downloading(shared, task)
    shared.call("control_object", handle=task["handle"], action="pause", options={})

    def stopped() -> bool:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    eventually(shared_kernel, stopped, lambda: "the worker was not stopped")
    fake.go.set()
    assert shared.call("stat_object", handle=task["handle"])["state"] == "paused"
    shared.call("control_object", handle=task["handle"], action="resume", options={})
    assert ended(shared, task)["state"] == "done"


def test_two_pulls_of_the_same_at_once_make_one_version(
    shared_kernel: KernelProcess, shared: RawClient, fake: FakeHub, footprint: Footprint
) -> None:
    fake.sent.clear()
    first = pull(shared, "twin")
    downloading(shared, first)
    second = pull(shared, "twin")
    with shared.watching("task", about=second["id"]) as events:
        shared.until(lambda: any(e["fields"].get("stage") == "waiting for another job" for e in events.chunks))
    fake.go.set()
    values = [ended(shared, task)["value"] for task in (first, second)]
    assert [value["version"] for value in values] == ["1", "1"]
    assert [value["unchanged"] for value in values] == [False, True]
    assert fake.fetched == sum(len(data) for data in FILES.values())
    assert [path.name for path in (shared_kernel.models / "twin/versions").iterdir()] == ["1"]


@pytest.mark.slow
def test_a_worker_ends_with_its_kernel(folder: Path, fake: FakeHub) -> None:
    environ = {"HF_ENDPOINT": fake.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hub")}
    with running(folder, drivers="models", environ=environ) as kernel, kernel.connection() as client:
        client.hello()
        client.await_driver("ready", "models")
        pid = downloading(client, pull(client, "fox"))
        with watched(pid) as wait:
            kernel.signal(signal.SIGKILL)
            kernel.ended()
            wait()
        kernel.clean()
    assert not (folder / "home/models/fox").exists()
    with running(folder, drivers="models") as kernel, kernel.client() as client:
        client.await_driver("ready", "models")
        assert client.names("/models") == ["tiny"] or client.names("/models") == []


@pytest.mark.skipif(not can_mount(), reason="a private mount namespace needs root and unshare(1)")
def test_a_full_disk_is_no_space_and_nothing_stays(folder: Path) -> None:
    source = write_model(folder / "elsewhere/mine")
    (source / "tokenizer.json").write_bytes(FILES["tokenizer.json"])
    with small_disk(folder, folder / "home/models", "400k", drivers="models") as kernel, kernel.client() as client:
        client.await_driver("ready", "models")
        mount = {"path": "/more", "filesystem": "models", "source": str(folder / "elsewhere")}
        client.call("mount_fs", system=client.system, **mount)
        result = ended(client, pull(client, "new", "/more/mine"))
        assert (result["state"], result["value"]["error"]["name"]) == ("failed", "NoSpace")
        assert "new" not in client.names("/models")
        (source / "tokenizer.json").write_text("[]")
        assert ended(client, pull(client, "new", "/more/mine"))["value"]["version"] == "1"

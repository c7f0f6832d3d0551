"""Tuning through kill -9 of host and kernel, pauses and stops: the same task, and the same result as undisturbed.

The null device pretends to tune; the last tests train the bundled model on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from system.kernel_process import ALL, KernelProcess, kill, running
from system.model_folder import write_model
from system.raw_client import RawClient

LINES = 40
"""Of the data: ten steps."""


@pytest.fixture
def home(folder: Path) -> Path:
    """A folder with a model and data."""
    write_model(folder / "home/models/null")
    (folder / "home/files").mkdir(parents=True)
    (folder / "home/files/data.jsonl").write_text("".join(f'{{"text": "line {n}"}}\n' for n in range(LINES)))
    return folder


@pytest.fixture
def kernel(home: Path) -> Iterator[KernelProcess]:
    with running(home, drivers=ALL) as kernel:
        yield kernel


@pytest.fixture
def client(kernel: KernelProcess) -> Iterator[RawClient]:
    with kernel.client() as client:
        yield client


def begin(client: RawClient, out: str, promote_if: str = "", **options: Any) -> dict[str, Any]:
    recipe = {
        "method": "lora", "batch_size": 4, "checkpoint_every": 2, "promote_if": promote_if, "options": options,
    }  # fmt: skip
    for driver in ("null0", "models", "files"):
        client.await_driver("ready", driver)
    task: dict[str, Any] = client.call(
        "tune", model=client.load("null"), recipe=recipe, data="/home/data.jsonl", out=f"/models/{out}"
    )
    return task


def held(home: Path, step: int = 5) -> dict[str, Any]:
    """Options of a job that waits before a step until `go` lets it on."""
    return {"hold": [step, str(home / "go")]}


def until_step(client: RawClient, task: Mapping[str, Any], step: int) -> None:
    with client.watching("task", about=task["id"]) as events:
        if client.call("stat_object", handle=task["handle"])["fields"]["progress"]["done"] < step:
            client.until(lambda: any(event["fields"].get("done", 0) >= step for event in events.chunks))


def ended(client: RawClient, task: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = client.call("wait_task", task=task["handle"])
    return result


def found(client: RawClient, id: str) -> dict[str, Any]:
    """The task of that id, with a handle of this session."""
    tasks = client.call("list_objects", system=client.system, kind="task")
    return next(task for task in tasks if task["id"] == id)


def weights(home: Path, name: str) -> bytes:
    return (home / f"home/models/{name}/versions/1/adapter_model.safetensors").read_bytes()


def undisturbed(client: RawClient, home: Path) -> bytes:
    """What comes of the same recipe when nothing happens."""
    assert ended(client, begin(client, "calm"))["state"] == "done"
    return weights(home, "calm")


def test_a_result_is_an_entry_with_its_parent_and_can_be_loaded(client: RawClient, home: Path) -> None:
    result = ended(client, begin(client, "mine"))
    assert (result["state"], result["value"]["path"], result["value"]["version"]) == ("done", "/models/mine", "1")
    fields = client.call("stat_path", path="/models/mine")["fields"]
    (parent,) = fields["lineage"]
    assert (parent["stored"], parent["how"]) == ("/null@local", "adapter") and '"seed":0' in parent["recipe"]
    adapter = client.call("load_model", path="/models/mine", base=client.load("null"))
    assert client.infer(adapter["handle"], "hello")["choices"][0]["text"] == "hello"
    assert not (home / "home/tunes").exists() or not list((home / "home/tunes").iterdir())


def test_a_promoted_result_takes_the_name_over_and_a_candidate_does_not(client: RawClient) -> None:
    ended(client, begin(client, "mine"))
    first = client.call("load_model", path="/models/mine", base=client.load("null"), options={"name": "mine"})
    slow = {"ignore_eos": True, "max_tokens": 30}
    streams = [client.start(first["handle"], "!slow 5; abc", "infer_stream", **slow) for _ in range(4)]
    for number in streams:
        client.first_chunk(number)
    good = ended(client, begin(client, "mine@2", promote_if="loss < 1000"))["value"]
    assert good["promoted"] and [client.wait(number).value["model_version"] for number in streams] == ["1"] * 4

    def serving() -> str:
        models = client.call("list_objects", system=client.system, kind="model")
        (mine,) = [each["handle"] for each in models if each["name"] == "mine" and each["state"] == "awake"]
        return str(client.infer(mine, "hello")["model_version"])

    assert serving() == "2"
    poor = ended(client, begin(client, "mine@3", promote_if="loss < 0"))["value"]
    assert not poor["promoted"] and (poor["path"], poor["version"]) == ("/models/mine", "3")
    assert client.call("stat_path", path="/models/mine")["version"] == serving() == "2"


def test_a_task_goes_on_after_its_host_was_killed(client: RawClient, home: Path) -> None:
    task = begin(client, "mine", **held(home))
    until_step(client, task, 5)
    kill(client.host())
    (home / "go").touch()
    result = ended(client, task)
    assert result["state"] == "done" and result["id"] == task["id"]
    records = client.call("read_journal", system=client.system, about=task["id"])
    assert any("begins again from its last checkpoint" in record["text"] for record in records)
    assert weights(home, "mine") == undisturbed(client, home)


def test_a_task_goes_on_after_the_kernel_was_killed(home: Path) -> None:
    first = KernelProcess(home, drivers=ALL)
    with first.client() as client:
        task = begin(client, "mine", **held(home))
        until_step(client, task, 5)
        kill(first.pid)
        first.process.wait()
    first.close()
    first.clean()
    (home / "go").touch()
    with running(home, drivers=ALL) as second, second.client() as client:
        again = found(client, task["id"])
        assert ended(client, again)["state"] == "done"
        assert weights(home, "mine") == undisturbed(client, home)


def test_a_result_that_a_killed_kernel_had_not_recorded_is_found(home: Path) -> None:
    """It was killed between the commit and its record, which is then as it was at the last checkpoint."""
    first = KernelProcess(home, drivers=ALL)
    with first.client() as client:
        task = begin(client, "mine")
        assert ended(client, task)["state"] == "done"
        kill(first.pid)
        first.process.wait()
    first.close()
    first.clean()
    file = home / f"home/runs/{task['id']}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "running", "ended": 0.0, "version": ""}))
    with running(home, drivers=ALL) as second, second.client() as client:
        result = ended(client, found(client, task["id"]))
        assert (result["state"], result["value"]["version"]) == ("done", "1")
        fields = client.call("stat_path", path="/models/mine")["fields"]
        assert (fields["versions"], fields["run"]) == (["1"], task["id"])


def test_a_task_goes_on_after_the_kernel_was_stopped(home: Path) -> None:
    with running(home, drivers=ALL) as first, first.client() as client:
        task = begin(client, "mine", **held(home))
        until_step(client, task, 5)
    assert (home / "home/tunes" / task["id"] / "keep/checkpoint.json").exists()
    (home / "go").touch()
    with running(home, drivers=ALL) as second, second.client() as client:
        assert ended(client, found(client, task["id"]))["state"] == "done"
        assert weights(home, "mine") == undisturbed(client, home)


def test_requests_are_answered_beside_a_task_that_is_paused_resumed_and_cancelled(
    client: RawClient, home: Path
) -> None:
    task = begin(client, "mine", **held(home))
    until_step(client, task, 5)
    model = client.load("null")
    assert client.infer(model, "beside")["choices"][0]["text"] == "beside"
    control = {"handle": task["handle"], "options": {}}
    assert client.call("control_object", action="pause", **control)["state"] == "paused"
    assert client.call("control_object", action="resume", **control)["state"] == "running"
    assert client.call("cancel_task", task=task["handle"])["state"] == "cancelled"
    assert "mine" not in client.names("/models")
    assert not [row for row in client.call("stat_path", path="/sys/memory") if "tuning" in str(row)]
    assert client.infer(model, "after")["choices"][0]["text"] == "after"


REAL = "cpu0,models,files"
REAL_RECIPE: Mapping[str, Any] = {
    "method": "lora", "rank": 2, "dropout": 0.1, "batch_size": 2, "max_steps": 10, "max_length": 24, "packing": False,
    "checkpoint_every": 2, "learning_rate": 1e-2, "target_modules": ["q_proj", "v_proj"], "eval_fraction": 0.1,
}  # fmt: skip


def begin_real(client: RawClient, out: str, **more: Any) -> dict[str, Any]:
    client.await_driver("ready", "files")
    client.await_driver("ready", "models")
    client.await_driver("ready", "cpu0")
    task: dict[str, Any] = client.call(
        "tune", model=client.load("tiny", "cpu0"), recipe={**REAL_RECIPE, **more}, data="/home/data.jsonl",
        out=f"/models/{out}",
    )  # fmt: skip
    return task


SEARCH = {"space": {"learning_rate": [1e-5, 1e-2], "rank": [2, 4]}, "trials": 4, "parallel": 2}


def trials(client: RawClient, id: str) -> list[dict[str, Any]]:
    """What each trial of a search was and came to, without how long it took."""
    record = json.loads(client.read(f"/sys/runs/{id}"))
    return [{**trial, "seconds": 0} for trial in record["facts"]["trials"]]


@pytest.mark.slow
def test_a_search_ends_with_the_same_trials_and_bits_after_host_and_kernel_were_killed(home: Path) -> None:
    fields = {"search": SEARCH, "eval_fraction": 0.2, "checkpoint_every": 1}
    with running(home, drivers=REAL) as kernel, kernel.client() as client:
        calm = begin_real(client, "calm", **fields)
        assert ended(client, calm)["state"] == "done"
        wanted = trials(client, calm["id"])
    assert len(wanted) == 4
    first = KernelProcess(home, drivers=REAL)
    with first.client() as client:
        task = begin_real(client, "mine", **fields)
        until_step(client, task, 4)
        kill(client.host("cpu0"))
        until_step(client, task, 10)
        kill(first.pid)
        first.process.wait()
    first.close()
    first.clean()
    with running(home, drivers=REAL) as second, second.client() as client:
        assert ended(client, found(client, task["id"]))["state"] == "done"
        assert trials(client, task["id"]) == wanted
        assert weights(home, "mine") == weights(home, "calm")


@pytest.mark.slow
def test_real_weights_are_the_same_to_the_last_bit_after_host_and_kernel_were_killed(home: Path) -> None:
    with running(home, drivers=REAL) as kernel, kernel.client() as client:
        assert ended(client, begin_real(client, "calm"))["state"] == "done"
    first = KernelProcess(home, drivers=REAL)
    with first.client() as client:
        task = begin_real(client, "mine")
        until_step(client, task, 3)
        kill(client.host("cpu0"))
        until_step(client, task, 6)
        kill(first.pid)
        first.process.wait()
    first.close()
    first.clean()
    with running(home, drivers=REAL) as second, second.client() as client:
        result = ended(client, found(client, task["id"]))
        assert result["state"] == "done"
        assert weights(home, "mine") == weights(home, "calm")
        adapter = client.call("load_model", path="/models/mine", base=client.load("tiny", "cpu0"))
        assert client.infer(adapter["handle"], "help", max_tokens=4)["choices"][0]["text"]

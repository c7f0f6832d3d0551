"""What objects say of themselves."""

from __future__ import annotations

import pytest
from scripted import Inside, Program

from llmos.kernel.objects import KernelObject, ModelObject, TaskObject
from llmos.kernel.supervisor import DriverState
from llmos.syscalls.types import Kind


def test_an_object_is_open_and_well_until_it_says_otherwise() -> None:
    info = KernelObject(id="x-1", kind=Kind.FILE, name="x", owner="7", since=3.0).describe()
    assert (info.state, info.health, info.bytes, info.fields, info.reasons) == ("open", "ok", 0, {}, [])
    assert (info.id, info.owner, info.since) == ("x-1", "7", 3.0)


def test_the_system_tells_its_facts(program: Program) -> None:
    info = program.call("stat_object", handle=program.system)
    assert info["state"] == "running" and info["fields"]["protocol"] == 1


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("starting", "starting"),
        *[("ready", "ok"), ("suspect", "suspect"), ("failed", "failed"), ("backoff", "down"), ("stopped", "down")],
    ],
)
def test_the_health_of_a_driver_follows_its_state(kernel: Inside, program: Program, state: str, health: str) -> None:
    kernel.null.driver.state = DriverState(state)
    assert program.driver()["health"] == health
    kernel.null.driver.state = DriverState.READY


def test_a_device_keeps_the_cause_of_its_last_end(kernel: Inside, program: Program) -> None:
    kernel.null.dies(cause="exit status 3")
    info = program.call("stat_object", handle=program.grants["null0"])
    assert (info["bytes"], info["fields"]["cause"], info["fields"].get("kind")) == (0, "exit status 3", None)
    kernel.null.starts()
    info = program.call("stat_object", handle=program.grants["null0"])
    assert (info["bytes"], info["fields"]["kind"]) == (1 << 20, "null")


def test_groups_of_drivers_are_told_apart(program: Program) -> None:
    assert program.driver("models")["fields"]["group"] == "filesystem"
    assert program.driver("null0")["fields"]["group"] == "device"


def test_a_model_that_was_never_loaded_has_no_size(kernel: Inside, program: Program) -> None:
    program.load("tiny")
    model = next(iter(kernel.kernel.models.by_id.values()))
    assert isinstance(model, ModelObject) and model.size() == 1024
    assert model.describe().fields["architecture"] == "Echo"
    loaded, model.loaded = model.loaded, None
    assert model.size() == 0 and "architecture" not in model.describe().fields
    model.loaded = loaded
    for status, health in (("awake", "ok"), ("asleep", "ok"), ("failed", "failed"), ("loading", "loading")):
        model.status = status
        assert model.health() == health
    model.status = "awake"


def test_conversations_files_and_leases_describe_themselves(program: Program) -> None:
    context = program.call("open_context", model=program.load("tiny"), max_tokens=16)
    info = program.call("stat_object", handle=context["handle"])
    assert (info["state"], info["bytes"], info["fields"]["max_tokens"]) == ("open", 16, 16)
    file = program.call("open_file", path="/home/x")["handle"]
    assert program.call("stat_object", handle=file)["fields"] == {"path": "/home/x", "mode": "r", "version": "v1"}
    lease = program.call("alloc_gpu", device=program.grants["null0"], bytes=7)["handle"]
    assert program.call("stat_object", handle=lease)["fields"]["session"] == program.session


def test_a_task_tells_its_end() -> None:
    task = TaskObject(id="t-1", kind=Kind.TASK, name="true", argv=["true"], status="failed", exit=3, output="words")
    info = task.describe()
    assert (info.state, info.health) == ("failed", "failed")
    assert info.fields == {"kind": "program", "argv": ["true"], "pid": 0, "exit": 3, "session": "", "progress": {}}
    assert task.result().value == {"output": "words"}
    task.status = "done"
    assert task.health() == "ok"

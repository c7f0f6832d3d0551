"""Tuning tasks from the call to their end, with a scripted driver: control, progress, deaths, room, boots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted import MEMORY, Inside, Program, inside, loaded, rows
from tuning_tasks import RECIPE, begin, ends, record, result

from llmos.kernel.objects import TaskObject
from llmos.kernel.supervisor import DriverState
from llmos.kernel.tunes import runs
from llmos.kernel.tunes.service import CHECKPOINT_S
from llmos.syscalls.driver import PlanRows, Tuning
from llmos.syscalls.errors import (
    BadArgument, BadState, Busy, Conflict, DriverFailed, Exists, LlmosError, NoDeviceMemory, NoSpace, NotFound,
    NotSupported, OverQuota, PeerGone, ReadOnly,
)  # fmt: skip
from llmos.syscalls.events import TuneProgress
from llmos.syscalls.types import Kind, LedgerRow

@pytest.fixture
def task(program: Program, model: int) -> dict[str, Any]:
    """A task whose job runs."""
    return begin(program, model)


def refused(program: Program, model: int, data: str = "/home/d.jsonl", out: str = "/models/mine") -> LlmosError:
    return program.error("tune", model=model, recipe=RECIPE, data=data, out=out)


def comes_to(kernel: Inside, task: dict[str, Any], step: int, stage: str = "train", **values: float) -> None:
    kernel.null.event(TuneProgress(id=task["id"], step=step, steps=4, values=values or {"loss": 1 / step}, stage=stage))


def tuning_bytes(kernel: Inside) -> int:
    return sum(row.ledger for row in kernel.kernel.ledger.rows() if row.what == "tuning")


def jobs(kernel: Inside) -> list[dict[str, Any]]:
    """What the driver was told to begin."""
    return [body for name, body in kernel.null.calls if name == "tune" and not body["dry_run"]]


def folder(kernel: Inside, task: dict[str, Any]) -> Path:
    return kernel.config.paths.home / "tunes" / str(task["id"])


def listed(program: Program, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = program.call("list_objects", system=program.system, kind=kind)
    return found


def in_the_way(kernel: Inside, name: str) -> None:
    kernel.config.paths.home.mkdir(exist_ok=True)
    (kernel.config.paths.home / name).write_text("a file")


def test_facts_that_a_job_tells_are_in_its_record_at_once(kernel: Inside, task: dict[str, Any]) -> None:
    """As the trials of a search."""
    before = record(kernel, task).facts
    trials = [{"number": 0, "state": "pruned"}]
    kernel.null.event(TuneProgress(id=task["id"], step=1, steps=4, stage="trial", facts={"trials": trials}))
    assert record(kernel, task).facts == {**before, "trials": trials}


# ---- a task from beginning to end


def test_a_job_is_planned_admitted_begun_and_its_result_stored(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    (_, planned), (name, told) = kernel.null.calls[-3:-1]
    assert planned["dry_run"] and planned["work_class"] == "background"
    assert name == "set_budget" and told["budget"]["slice_s"] == 0.02, "before it begins"
    (job,) = jobs(kernel)
    assert (job["id"], job["data"]["path"], job["base_path"]) == (task["id"], "/d.jsonl", "/models/tiny")
    assert (job["folder"], job["keep"]) == (str(folder(kernel, task) / "result"), str(folder(kernel, task) / "keep"))
    assert folder(kernel, task).joinpath("result").is_dir() and tuning_bytes(kernel) == 512
    comes_to(kernel, task, 2)
    info = program.call("stat_object", handle=task["handle"])
    progress = info["fields"]["progress"]
    assert (progress["done"], progress["total"], progress["fraction"], progress["loss"]) == (2, 4, 0.5, 0.5)
    ends(kernel, task)
    ended = result(program, task)
    assert (ended["state"], ended["exit"]) == ("done", 0)
    assert ended["value"] == {
        "path": "/models/mine", "version": "1", "metrics": {"loss": 0.25}, "run": task["id"],
        "promoted": True,
    }  # fmt: skip
    assert ended["reasons"][0]["text"] == "/models/mine@1: 2 steps, loss 0.25"
    assert tuning_bytes(kernel) == 0 and not folder(kernel, task).exists()
    assert kernel.files.names() == ["locate", "release"]


def test_the_result_says_where_it_comes_from(kernel: Inside, program: Program, model: int) -> None:
    facts = {"data_sha256": "ab" * 32}
    kernel.null.answers["tune"] = Tuning(rows=[], steps=4, tokens=80, facts=facts)
    task = begin(program, model, out="/models/mine@second")
    ends(kernel, task)
    assert result(program, task)["value"]["path"] == "/models/mine"
    staged, commit = kernel.models.last("stage"), kernel.models.last("commit")
    assert (staged["path"], staged["take"]) == ("/mine@second", str(folder(kernel, task) / "result"))
    manifest = commit["manifest"]
    assert commit["expected_version"] is None and manifest["architecture"] == "LORA adapter"
    (parent,) = manifest["parents"]
    assert (parent["path"], parent["version"], parent["how"]) == ("/models/tiny", "1", "adapter")
    assert parent["data_sha256"] == facts["data_sha256"]
    recipe = msgspec.json.decode(parent["recipe"])
    assert (recipe["method"], recipe["seed"], recipe["rank"]) == ("lora", 7, 8) and recipe["code"]


def test_progress_is_told_as_events(kernel: Inside, program: Program, model: int) -> None:
    with program.watching("task") as events:
        task = begin(program, model, work_class="batch")
        comes_to(kernel, task, 1, loss=2.0)
        ends(kernel, task)
        result(program, task)
        program.drain()
        stages = [event["fields"].get("stage", event["fields"]["state"]) for event in events.chunks]
    assert stages == ["start", "begin", "train", "store", "done"]
    assert events.chunks[2]["fields"]["loss"] == 2.0 and events.chunks[0]["fields"]["work"] == "tune"
    assert jobs(kernel)[0]["work_class"] == "batch"


def test_what_is_told_of_others_does_not_matter(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    comes_to(kernel, {"id": "t-other"}, 3)
    ends(kernel, {"id": "t-other"})
    assert program.state(task["handle"]) == "running"


def test_a_job_that_fails_says_why_and_is_taken_up_again(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    comes_to(kernel, task, 2, "checkpoint")
    ends(kernel, task, "failed", BadArgument("row 3 is empty", name="data"))
    ended = result(program, task)
    assert (ended["state"], ended["value"]["error"]["name"]) == ("failed", "BadArgument")
    assert folder(kernel, task).exists() and tuning_bytes(kernel) == 0
    assert record(kernel, task).error["message"] == "row 3 is empty"
    program.control(task["handle"], "resume")
    assert len(jobs(kernel)) == 2 and program.state(task["handle"]) == "running"
    ends(kernel, task)
    assert result(program, task)["state"] == "done"
    assert isinstance(program.control_error(task["handle"], "resume"), BadState)


def test_only_tuning_tasks_are_taken_up_again(kernel: Inside) -> None:
    other = TaskObject(id="t-none", kind=Kind.TASK, name="x", argv=[], status="failed")
    assert not kernel.kernel.tunes.again(other)


def test_a_plan_begins_nothing(kernel: Inside, program: Program, model: int) -> None:
    planned = begin(program, model, dry_run=True)
    plan = planned["plan"]
    assert (planned["handle"], planned["state"], plan["steps"], plan["needed"]) == (0, "planned", 4, 512)
    assert plan["free"] == kernel.kernel.ledger.free("null0") and jobs(kernel) == []
    assert kernel.files.names() == ["locate", "release"] and listed(program, "task") == []
    kernel.null.answers["tune"] = BadArgument("no", name="method")
    assert isinstance(program.error(
        "tune", model=model, recipe=RECIPE, data="/home/d", out="/models/mine", dry_run=True
    ), BadArgument)  # fmt: skip
    program.control(model, "sleep")


# ---- what is refused


def test_what_cannot_be_tuned_is_refused(kernel: Inside, program: Program, model: int) -> None:
    adapter = program.call("load_model", path="/models/adapter", base=model)["handle"]
    assert isinstance(refused(program, adapter), NotSupported)
    assert isinstance(refused(program, model, data="/sys/version"), NotSupported)
    assert isinstance(refused(program, model, out="/dev/x"), (NotSupported, ReadOnly))
    assert isinstance(refused(program, model, data="/nowhere/d"), NotFound)
    kernel.models.answers["stat"] = {"path": "/mine", "kind": "folder"}
    assert isinstance(refused(program, model), Exists)
    assert jobs(kernel) == [] and not kernel.kernel.tunes.busy


def test_a_job_without_room_is_refused_and_leaves_nothing(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["tune"] = Tuning(rows=rows(2 * MEMORY, "tuning"), steps=1, tokens=1)
    error = refused(program, model)
    assert isinstance(error, NoDeviceMemory) and error.needed == 2 * MEMORY
    assert tuning_bytes(kernel) == 0 and kernel.files.names() == ["locate", "release"]
    program.control(model, "sleep")
    assert program.state(model) == "asleep"


def test_idle_models_make_room_for_a_job_but_not_its_own(kernel: Inside, program: Program, model: int) -> None:
    half = MEMORY // 2
    kernel.null.answers.update(plan=PlanRows(rows=rows(half)), load=loaded(half))
    other = program.load("other")
    kernel.null.answers["tune"] = Tuning(rows=rows(half + 1, "tuning"), steps=1, tokens=1)
    begin(program, model)
    assert (program.state(model), program.state(other)) == ("awake", "asleep")


def test_the_machines_memory_of_a_job_is_promised_too(kernel: Inside, program: Program, model: int) -> None:
    beside = LedgerRow(device="host", what="tuning", owner="t", predicted=100)
    kernel.null.answers["tune"] = Tuning(rows=[*rows(10, "tuning"), beside], steps=1, tokens=1)
    begin(program, model)
    assert {row.device: row.ledger for row in kernel.kernel.ledger.rows() if row.what == "tuning"} == {
        "null0": 10, "host": 100,
    }  # fmt: skip


def test_a_record_that_cannot_be_written_refuses_the_task(kernel: Inside, program: Program, model: int) -> None:
    in_the_way(kernel, "runs")
    assert isinstance(refused(program, model), NoSpace) and tuning_bytes(kernel) == 0


def test_a_record_that_cannot_be_written_later_is_noted(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    runs = kernel.config.paths.home / "runs"
    runs.rename(runs.with_name("away"))
    runs.write_text("in the way")
    comes_to(kernel, task, 1, "checkpoint")
    records = program.call("read_journal", system=program.system, about=task["id"])
    assert "cannot be written" in records[-1]["text"] and program.state(task["handle"]) == "running"


def test_a_folder_that_cannot_be_made_fails_the_task(kernel: Inside, program: Program, model: int) -> None:
    in_the_way(kernel, "tunes")
    ended = result(program, begin(program, model))
    assert (ended["state"], ended["value"]["error"]["name"]) == ("failed", "NoSpace")


def test_what_is_left_of_the_oldest_runs_goes(
    kernel: Inside, program: Program, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch, model: int
) -> None:
    monkeypatch.setattr(runs, "KEPT", 1)
    ends(kernel, task, "failed", BadArgument("row 3 is empty"))
    assert folder(kernel, task).exists()
    other = begin(program, model)
    assert not folder(kernel, task).exists() and program.names("/sys/runs") == [other["id"]]
    assert msgspec.json.decode(kernel.kernel.tunes.runs.text(other["id"]))["state"] == "running"


def test_a_user_has_so_many_jobs(kernel: Inside, program: Program, model: int) -> None:
    for number in range(8):
        begin(program, model, out=f"/models/m{number}")
    assert isinstance(refused(program, model), OverQuota)


def test_a_result_whose_name_was_taken_meanwhile_fails(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    kernel.models.answers["commit"] = Conflict("is now 1", version="1")
    ends(kernel, task)
    ended = result(program, task)
    assert (ended["state"], ended["value"]["error"]["name"]) == ("failed", "Exists")
    assert folder(kernel, task).exists() and kernel.models.names()[-1] == "release"


# ---- the model stays


def test_a_model_that_is_tuned_stays_where_it_is(
    kernel: Inside, program: Program, model: int, task: dict[str, Any]
) -> None:
    assert isinstance(program.control_error(model, "sleep"), BadState)
    assert isinstance(program.control_error(model, "swap", to="2"), Busy)
    error = program.error("unload_model", model=model)
    assert isinstance(error, Busy) and task["id"] in str(error)
    program.control(model, "keep_alive", seconds=0)
    kernel.advance(60)
    assert program.state(model) == "awake"
    ends(kernel, task)
    kernel.advance(60)
    assert program.state(model) == "asleep"


def test_unloading_by_force_fails_its_tasks(kernel: Inside, program: Program, model: int, task: dict[str, Any]) -> None:
    program.call("unload_model", model=model, force=True)
    ended = result(program, task)
    assert (ended["state"], ended["value"]["error"]["name"]) == ("failed", "BadState")
    assert tuning_bytes(kernel) == 0 and "unload" in kernel.null.names()


def test_a_model_that_is_replaced_is_tuned_to_the_end_first(
    kernel: Inside, program: Program, model: int, task: dict[str, Any]
) -> None:
    program.call("load_model", path="/models/other", options={"name": "tiny", "replace": True})
    assert "unload" not in kernel.null.names()
    ends(kernel, task)
    result(program, task)
    assert kernel.null.names()[-1] == "unload"


# ---- control


def test_a_job_is_paused_and_resumed(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    assert program.control(task["handle"], "pause")["state"] == "paused"
    assert kernel.null.names()[-1] == "checkpoint" and record(kernel, task).state == "paused"
    comes_to(kernel, task, 2, "checkpoint")
    assert kernel.null.names()[-1] == "pause"
    assert isinstance(program.control_error(task["handle"], "checkpoint"), BadState)
    kernel.advance(2 * CHECKPOINT_S)
    assert kernel.null.names()[-1] == "pause"
    assert isinstance(program.control_error(task["handle"], "pause"), BadState)
    assert program.control(task["handle"], "resume")["state"] == "running"
    assert kernel.null.names()[-1] == "resume" and record(kernel, task).state == "running"


def test_a_pause_that_is_taken_back_before_its_checkpoint(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    program.control(task["handle"], "pause")
    program.control(task["handle"], "resume")
    comes_to(kernel, task, 2, "checkpoint")
    assert not {"pause", "resume"} & set(kernel.null.names())


def test_a_paused_job_leaves_its_driver_at_once(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    program.control(task["handle"], "pause")
    comes_to(kernel, task, 2, "checkpoint")
    program.control(task["handle"], "priority", nice=-1)
    assert kernel.null.names()[-1] == "cancel"
    ends(kernel, task, "cancelled")
    assert program.state(task["handle"]) == "paused" and len(jobs(kernel)) == 1 and tuning_bytes(kernel) == 0
    program.control(task["handle"], "resume")
    assert [job["work_class"] for job in jobs(kernel)] == ["background", "batch"]


def test_a_job_that_is_paused_while_it_is_begun_is_paused_then(
    kernel: Inside, program: Program, model: int
) -> None:
    kernel.null.holds.add("tune")
    number = program.send("tune", model=model, recipe=RECIPE, data="/home/d", out="/models/mine")
    kernel.null.release("tune")
    task = program.wait(number).value
    program.control(task["handle"], "pause")
    assert "pause" not in kernel.null.names()
    kernel.null.release("tune")
    assert kernel.null.names()[-1] == "pause"


def test_a_job_is_cancelled(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    comes_to(kernel, task, 3)
    number = program.send("cancel_task", task=task["handle"])
    assert kernel.null.names()[-1] == "cancel" and not program.done(number)
    ends(kernel, task, "cancelled")
    assert program.wait(number).value["state"] == "cancelled"
    ended = result(program, task)
    assert ended["reasons"][0]["text"] == "cancelled after step 3 of 4" and not folder(kernel, task).exists()
    assert program.call("cancel_task", task=task["handle"])["state"] == "cancelled"


def test_a_job_that_is_cancelled_before_its_driver_has_it(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.holds.add("tune")
    number = program.send("tune", model=model, recipe=RECIPE, data="/home/d", out="/models/mine")
    kernel.null.release("tune")
    task = program.wait(number).value
    assert program.call("cancel_task", task=task["handle"])["state"] == "cancelled"
    assert tuning_bytes(kernel) == 0


def test_a_job_that_is_being_stored_is_not_cancelled_any_more(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    kernel.models.holds.add("commit")
    ends(kernel, task)
    number = program.send("cancel_task", task=task["handle"])
    kernel.models.release("commit")
    assert program.wait(number).value["state"] == "done"


def test_a_checkpoint_is_asked_for(kernel: Inside, program: Program, model: int, task: dict[str, Any]) -> None:
    program.control(task["handle"], "checkpoint")
    assert kernel.null.names()[-1] == "checkpoint"
    comes_to(kernel, task, 2, "checkpoint")
    assert record(kernel, task).step == 2
    ends(kernel, task)
    assert isinstance(program.control_error(task["handle"], "checkpoint"), BadState)


def test_checkpoints_are_asked_for_from_time_to_time(kernel: Inside, task: dict[str, Any]) -> None:
    kernel.advance(CHECKPOINT_S - 1)
    assert "checkpoint" not in kernel.null.names()
    kernel.advance(2)
    assert kernel.null.names().count("checkpoint") == 1
    comes_to(kernel, task, 2, "checkpoint")
    kernel.advance(CHECKPOINT_S - 1)
    assert kernel.null.names().count("checkpoint") == 1


def test_a_job_of_another_class_begins_again_from_a_checkpoint(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    program.control(task["handle"], "priority", nice=5)
    assert "checkpoint" not in kernel.null.names()
    program.control(task["handle"], "priority", nice=0)
    comes_to(kernel, task, 2, "checkpoint")
    assert kernel.null.names()[-1] == "cancel"
    ends(kernel, task, "cancelled")
    assert [job["work_class"] for job in jobs(kernel)] == ["background", "batch"]
    ends(kernel, task)
    assert result(program, task)["state"] == "done"


# ---- deaths


def test_a_job_begins_again_when_its_host_died(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    comes_to(kernel, task, 2, "checkpoint")
    comes_to(kernel, task, 3)
    kernel.null.dies()
    assert program.state(task["handle"]) == "running" and tuning_bytes(kernel) == 0
    kernel.null.starts()
    assert [job["id"] for job in jobs(kernel)] == [task["id"]] * 2 and tuning_bytes(kernel) == 512
    comes_to(kernel, task, 3, loss=0.3)
    ends(kernel, task)
    assert result(program, task)["state"] == "done"
    assert [point["step"] for point in record(kernel, task).curve] == [2, 3]


def test_a_paused_job_waits_for_its_resume_when_its_host_died(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    program.control(task["handle"], "pause")
    kernel.null.dies()
    kernel.null.starts()
    kernel.advance(2 * CHECKPOINT_S)
    assert len(jobs(kernel)) == 1 and program.state(task["handle"]) == "paused"
    program.control(task["handle"], "resume")
    assert len(jobs(kernel)) == 2


def test_a_job_that_its_host_dies_of_fails(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    for _ in range(3):
        kernel.null.dies()
        kernel.null.starts()
    ended = result(program, task)
    assert (ended["state"], ended["value"]["error"]["name"]) == ("failed", DriverFailed.__name__)


def test_a_job_that_comes_further_each_time_goes_on(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    for step in (1, 2, 3, 4):
        comes_to(kernel, task, step)
        kernel.null.dies()
        kernel.null.starts()
    assert program.state(task["handle"]) == "running" and len(jobs(kernel)) == 5


def test_a_job_that_is_cancelled_while_its_host_is_dead(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    number = program.send("cancel_task", task=task["handle"])
    kernel.null.dies()
    assert program.wait(number).value["state"] == "cancelled"


def test_a_host_that_dies_while_a_job_is_begun(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.holds.add("tune")
    number = program.send("tune", model=model, recipe=RECIPE, data="/home/d", out="/models/mine")
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone) and not kernel.kernel.tunes.busy
    kernel.null.starts()
    kernel.null.holds.clear()
    assert program.state(model) == "awake"


def test_a_host_that_dies_while_the_data_of_a_job_are_looked_for(kernel: Inside, program: Program, model: int) -> None:
    kernel.files.holds.add("locate")
    number = program.send("tune", model=model, recipe=RECIPE, data="/home/d", out="/models/mine")
    kernel.null.dies()
    kernel.files.release("locate", {"path": "/d", "version": "1", "files": [], "token": "d"})
    assert isinstance(program.wait(number).error, PeerGone) and kernel.files.names()[-1] == "release"


def test_a_paused_job_whose_host_is_dead_changes_its_class_at_once(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    program.control(task["handle"], "pause")
    kernel.null.dies()
    program.control(task["handle"], "priority", nice=0)
    kernel.null.starts()
    program.control(task["handle"], "resume")
    assert [job["work_class"] for job in jobs(kernel)] == ["background", "batch"]


def test_a_device_that_is_given_up_fails_the_task(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    kernel.null.dies(DriverState.FAILED)
    ended = result(program, task)
    assert (ended["state"], ended["value"]["error"]["name"]) == ("failed", "DriverFailed")


# ---- the kernel ends and comes back


def test_a_task_goes_on_with_the_next_kernel(folder: Path) -> None:
    with inside(folder, drivers="null0,models,files") as first:
        first.tuning()
        program = first.program()
        task = begin(program, program.load("tiny"))
        comes_to(first, task, 2, "checkpoint", loss=0.5)
    with inside(folder, drivers="null0,models,files") as second:
        second.tuning()
        second.kernel.tunes.boot()
        second.settle()
        program = second.program()
        (found,) = listed(program, "task")
        assert (found["id"], found["state"]) == (task["id"], "running")
        (job,) = jobs(second)
        assert job["id"] == task["id"] and job["keep"].endswith(f"{task['id']}/keep")
        (model,) = listed(program, "model")
        assert (model["name"], model["state"]) == ("tiny", "awake")
        comes_to(second, task, 4)
        ends(second, task)
        assert result(program, found)["state"] == "done"


def test_a_paused_task_waits_in_the_next_kernel_too(folder: Path) -> None:
    with inside(folder, drivers="null0,models,files") as first:
        first.tuning()
        program = first.program()
        task = begin(program, program.load("tiny"))
        program.control(task["handle"], "pause")
    with inside(folder, drivers="null0,models,files") as second:
        second.tuning()
        second.kernel.tunes.boot()
        program = second.program()
        model = program.load("tiny")
        (found,) = listed(program, "task")
        assert found["state"] == "paused" and jobs(second) == []
        second.null.dies()
        second.null.starts()
        program.control(found["handle"], "resume")
        assert len(jobs(second)) == 1 and isinstance(program.control_error(model, "sleep"), BadState)
        assert len(listed(program, "model")) == 1


def test_a_task_whose_model_is_gone_fails_in_the_next_kernel(folder: Path) -> None:
    with inside(folder, drivers="null0,models,files") as first:
        first.tuning()
        program = first.program()
        begin(program, program.load("tiny"))
    with inside(folder, drivers="null0,models,files") as second:
        second.tuning()
        second.models.answers["locate"] = NotFound("no model tiny")
        second.kernel.tunes.boot()
        second.settle()
        program = second.program()
        (found,) = listed(program, "task")
        assert found["state"] == "failed"


def test_a_kernel_that_stops_has_jobs_leave_with_a_checkpoint(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    kernel.kernel.tunes.drain()
    assert kernel.null.names()[-1] == "checkpoint"
    kernel.kernel.draining = True
    comes_to(kernel, task, 3, "checkpoint")
    assert kernel.null.names()[-1] == "cancel"
    kernel.null.driver.state = DriverState.STOPPING
    ends(kernel, task, "cancelled")
    assert record(kernel, task).state == "running" and record(kernel, task).step == 3
    assert folder(kernel, task).exists() and not kernel.kernel.tunes.busy


def test_a_kernel_that_stops_leaves_tasks_whose_host_dies(
    kernel: Inside, program: Program, task: dict[str, Any]
) -> None:
    kernel.kernel.draining = True
    kernel.null.dies()
    assert record(kernel, task).state == "running"

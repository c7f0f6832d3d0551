"""The kernel's calls about tuning, through a real host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from llmos.drivers.contract import Device, FailedEvent, Row, TuneJob, TunePlan, TunePlannedEvent
from llmos.drivers.held import Held
from llmos.drivers.outgoing import Outgoing
from llmos.drivers.tuning_calls import TuningCalls
from llmos.syscalls.driver import HostTune
from llmos.syscalls.errors import BadArgument, Exists
from llmos.syscalls.wire import Message, MessageKind, unpack


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """A job of four steps that checkpoints after each second one, and waits before step 3 until it may go on."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"text": "{n}"}}\n' for n in range(8)))
    (tmp_path / "out").mkdir()
    file = {"name": data.name, "path": str(data), "bytes": data.stat().st_size}
    recipe = {"method": "lora", "batch_size": 2, "checkpoint_every": 2, "options": {"hold": [3, str(tmp_path / "go")]}}
    return {
        "id": "t", "model": "m", "recipe": recipe, "data": {"path": "/mnt/d", "version": "1", "files": [file]},
        "folder": str(tmp_path / "out"), "keep": str(tmp_path / "keep"), "work_class": "background",
        "base_path": "/models/m",
    }  # fmt: skip


def ended(host: Any) -> dict[str, Any]:
    return dict(host.until(MessageKind.EVENT, name="tune_ended").body)


def until_step(host: Any, step: int, stage: str = "train") -> dict[str, Any]:
    while True:
        body = host.until(MessageKind.EVENT, name="tune_progress").body
        if (body["step"], body["stage"]) == (step, stage):
            return dict(body)


def test_a_job_is_planned_without_being_begun(null: Any, job: dict[str, Any]) -> None:
    plan = null.call("tune", {**job, "dry_run": True})
    assert (plan["steps"], [(row["what"], row["owner"], row["predicted"]) for row in plan["rows"]]) == (
        4, [("tuning", "t", 1 << 16)],
    )  # fmt: skip
    assert null.call("pause", {"id": "t"})["name"] == "NotFound"


def test_a_job_tells_how_far_it_is_and_what_came_of_it(null: Any, job: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    assert null.call("tune", job)["tokens"] > 0
    told = until_step(null, 2, "checkpoint")
    assert (told["id"], told["steps"], told["values"]["loss"]) == ("t", 4, 2 / 3)
    body = ended(null)
    assert (body["reason"], body.get("error"), body["manifest"]["architecture"]) == ("done", None, "Echo")
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] == "/models/m"
    assert json.loads((tmp_path / "keep/checkpoint.json").read_text())["step"] == 4
    assert null.answer(null.submit("still here")).kind is MessageKind.END


def test_requests_are_served_beside_a_job_and_its_bytes_are_told(null: Any, job: dict[str, Any]) -> None:
    null.call("tune", job)
    until_step(null, 3)
    assert null.answer(null.submit("hello")).body["value"]["choices"][0]["text"] == "hello"
    assert {row["what"] for row in null.call("stats")["memory"]} == {"weights", "tuning"}
    assert null.call("tune", job)["name"] == "Exists"
    null.call("cancel", {"id": "t"})
    assert ended(null)["reason"] == "cancelled"


def test_a_job_pauses_writes_a_checkpoint_when_asked_and_goes_on(null: Any, job: dict[str, Any]) -> None:
    null.call("tune", job)
    until_step(null, 3)
    null.call("pause", {"id": "t"})
    hold = Path(job["recipe"]["options"]["hold"][1])
    hold.touch()
    null.call("checkpoint", {"id": "t"})
    null.call("resume", {"id": "t"})
    until_step(null, 3, "checkpoint")
    assert ended(null)["reason"] == "done"


def test_a_paused_job_is_cancelled(null: Any, job: dict[str, Any]) -> None:
    null.call("tune", job)
    until_step(null, 3)
    null.call("pause", {"id": "t"})
    null.call("cancel", {"id": "t"})
    assert ended(null)["reason"] == "cancelled"


def test_a_job_that_fails_says_why_and_leaves_the_host_alive(null: Any, job: dict[str, Any]) -> None:
    null.call("tune", {**job, "recipe": {**job["recipe"], "options": {"fail": 1}}})
    body = ended(null)
    assert (body["reason"], body["error"]["name"]) == ("failed", "DriverFailed")
    assert null.answer(null.submit("still here")).kind is MessageKind.END


def test_a_job_that_is_refused_is_not_begun(null: Any, job: dict[str, Any]) -> None:
    assert null.call("tune", {**job, "model": "other"})["name"] == "NotFound"
    assert null.call("tune", {**job, "recipe": {"method": "magic"}})["name"] == "BadArgument"
    many = {**job["recipe"], "options": {"bytes": 1 << 40}}
    assert null.call("tune", {**job, "recipe": many})["name"] == "NoDeviceMemory"
    assert null.call("cancel", {"id": "t"}) == {}
    null.call("tune", job)  # what was cancelled before was no job
    until_step(null, 3)


class Slow:
    """A device that takes a while to find out what a job would take."""

    def plan_tune(self, job: TuneJob) -> None:
        self.job = job


def test_what_a_job_would_take_may_be_said_later(job: dict[str, Any]) -> None:
    posted: list[Message] = []
    out = Outgoing(lambda messages: posted.extend(unpack(message) for message in messages))
    model = Held("m", "1", 0, cast(Any, None))
    calls = TuningCalls(cast(Device, Slow()), "null0", out, lambda _: model)
    asked = [msgspec.convert({**job, "id": name, "dry_run": True}, HostTune) for name in ("t", "u")]
    plan = calls.handlers[HostTune]
    assert [plan(number, call) for number, call in enumerate(asked, 7)] == [None, None] and calls.busy
    with pytest.raises(Exists):
        plan(9, asked[0])
    took = TunePlan([Row("tuning", "t", predicted=5)], 4, 20)
    wrong = BadArgument("no rows", name="data")
    request = FailedEvent("r", wrong)
    assert calls.told([TunePlannedEvent("t", took), request, FailedEvent("u", wrong)]) == [request]
    out.flush()
    first, second = posted
    assert (first.kind, first.request, first.body["value"]["steps"]) == (MessageKind.REPLY, 7, 4)
    assert (second.kind, second.request, second.body["name"]) == (MessageKind.ERROR, 8, "BadArgument")
    assert not calls.busy

"""Tuning on the null device: nothing learned, but done as often as asked and once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.contract import (
    FailedEvent, LoadSettings, ModelSource, SourceFile, TuneDoneEvent, TuneEvent, TuneJob, TuneProgressEvent,
)  # fmt: skip
from llmos.drivers.devices.null import NullDevice
from llmos.syscalls.errors import BadArgument, BadState, Exists, NotFound


@pytest.fixture
def device() -> NullDevice:
    device = NullDevice()
    device.start("null0", 1, {})
    device.load("m", ModelSource("/m", "1", []), LoadSettings(), lambda *_a, **_k: None)
    return device


def job(folder: Path, name: str = "t", **recipe: Any) -> TuneJob:
    folder.mkdir(exist_ok=True)
    data = folder / "data.jsonl"
    data.write_text("".join(f"line {n}\n" for n in range(20)))
    source = ModelSource("/d", "1", [SourceFile(data.name, data, data.stat().st_size)])
    whole = {"method": "lora", "batch_size": 2, "epochs": 1.0, "max_steps": 0, "rank": 8, **recipe}
    return TuneJob(name, "m", whole, source, folder / "out", folder / "keep")


def run(device: NullDevice, until: type[Any] = TuneDoneEvent, steps: int = 100) -> list[Any]:
    events: list[Any] = []
    for _ in range(steps):
        events += device.step()
        if any(isinstance(event, until) for event in events):
            break
    return events


def result(job: TuneJob) -> bytes:
    return (job.folder / "adapter_model.safetensors").read_bytes()


def trained(events: Sequence[TuneEvent]) -> list[int]:
    return [event.step for event in events if isinstance(event, TuneProgressEvent) and event.stage == "train"]


def test_a_run_that_was_interrupted_has_the_result_of_one_that_was_not(device: NullDevice, tmp_path: Path) -> None:
    whole = job(tmp_path / "a")
    assert device.tune(whole).steps == 10
    assert trained(run(device)) == list(range(1, 11))
    broken = job(tmp_path / "b", checkpoint_every=3)
    device.tune(broken)
    run(device, steps=5)
    other = NullDevice()
    other.start("null0", 1, {})
    other.load("m", ModelSource("/m", "1", []), LoadSettings(), lambda *_a, **_k: None)
    other.tune(broken)
    assert trained(run(other)) == list(range(4, 11))
    assert result(broken) == result(whole)


def test_other_data_has_another_result(device: NullDevice, tmp_path: Path) -> None:
    one, other = job(tmp_path / "a"), job(tmp_path / "b", max_steps=9)
    for each in (one, other):
        device.tune(each)
        run(device)
    assert result(one) != result(other)


def test_a_paused_job_does_nothing_but_what_it_is_asked(device: NullDevice, tmp_path: Path) -> None:
    each = job(tmp_path)
    device.tune(each)
    device.pause_tune("t")
    assert device.step() == []
    device.checkpoint_tune("t")
    assert [(event.stage, event.step) for event in device.step()] == [("checkpoint", 0)]  # type: ignore[union-attr]
    device.resume_tune("t")
    assert trained(device.step()) == [1]  # type: ignore[arg-type]


def test_what_cannot_be_begun_is_refused(device: NullDevice, tmp_path: Path) -> None:
    each = job(tmp_path)
    empty = replace(each, data=ModelSource("/d", "1", []))
    with pytest.raises(BadArgument, match="no rows"):
        device.plan_tune(empty)
    with pytest.raises(NotFound):
        device.tune(replace(each, model="other"))
    with pytest.raises(NotFound):
        device.pause_tune("t")
    device.tune(each)
    with pytest.raises(Exists):
        device.tune(each)
    device.sleep("m")
    with pytest.raises(BadState, match="sleeps"):
        device.tune(replace(each, id="u"))


def test_jobs_end_with_their_model(device: NullDevice, tmp_path: Path) -> None:
    device.tune(job(tmp_path))
    assert [row.owner for row in device.memory() if row.what == "tuning"] == ["t"]
    device.unload("m")
    assert [row for row in device.memory() if row.what == "tuning"] == []
    events = run(device, FailedEvent)
    assert [(event.request, event.error.state) for event in events] == [("t", "unloaded")]

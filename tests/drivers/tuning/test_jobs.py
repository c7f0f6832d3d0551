"""Whole jobs on a device that serves at the same time."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file

from llmos.drivers.contract import (
    DoneEvent, FailedEvent, LoadSettings, TuneDoneEvent, TuneJob, TunePlan, TunePlannedEvent, TuneProgressEvent,
)  # fmt: skip
from llmos.drivers.devices.cpu import CpuDevice
from llmos.syscalls.errors import BadArgument, BadModel, BadState, DriverFailed, Exists, NotFound, NotSupported

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECIPE: Mapping[str, Any] = {
    "method": "lora", "rank": 4, "batch_size": 4, "max_steps": 6, "learning_rate": 1e-2, "eval_fraction": 0.2,
    "checkpoint_every": 2, "max_length": 32, "target_modules": ["q_proj", "v_proj"],
}  # fmt: skip


def rows(count: int = 40) -> list[dict[str, str]]:
    return [{"prompt": f"{WORDS[n % 10]} {n}", "completion": f" {WORDS[(n + 1) % 10]}"} for n in range(count)]


def started(base: Path) -> CpuDevice:
    made = CpuDevice()
    made.start("cpu0", 1, {})
    made.load("m", tiny_models.source_of(base), LoadSettings(dtype="float32"), tiny_models.silent)
    return made


@pytest.fixture
def device(tmp_path: Path) -> Iterator[CpuDevice]:
    made = started(tiny_models.build(tmp_path / "base"))
    yield made
    made.stop()


@pytest.fixture
def job(tmp_path: Path) -> TuneJob:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    source = tiny_models.source_of(data)
    return TuneJob("t1", "m", RECIPE, source, tmp_path / "out", tmp_path / "keep", base_path="/models/base")


def another(job: TuneJob, name: str, **recipe: Any) -> TuneJob:
    """The same, with a folder of its own."""
    out, keep = job.folder.with_name(f"{name}-out"), job.keep.with_name(f"{name}-keep")
    return replace(job, id=name, folder=out, keep=keep, recipe={**job.recipe, **recipe})


def run(device: CpuDevice, job: str, limit: int = 5000) -> list[Any]:
    """Steps until the job has ended; all events."""
    events: list[Any] = []
    for _ in range(limit):
        events += device.step()
        if any(isinstance(each, TuneDoneEvent | FailedEvent) and _of(each) == job for each in events):
            return events
    raise AssertionError(f"{job} has not ended: {events[-3:]}")


def _of(event: Any) -> str:
    return str(event.request if isinstance(event, FailedEvent) else event.id)


def planned(device: CpuDevice, job: TuneJob, limit: int = 5000) -> TunePlan:
    """What a job would take. Raises why it cannot be."""
    device.plan_tune(job)
    for event in (event for _ in range(limit) for event in device.step()):
        if isinstance(event, FailedEvent) and event.request == job.id:
            raise event.error
        if isinstance(event, TunePlannedEvent) and event.id == job.id:
            return event.plan
    raise AssertionError(f"{job.id} was not planned")


def told(events: Sequence[Any], stage: str) -> list[TuneProgressEvent]:
    return [each for each in events if isinstance(each, TuneProgressEvent) and each.stage == stage]


def weights(job: TuneJob) -> dict[str, torch.Tensor]:
    return load_file(job.folder / "adapter_model.safetensors")


def equal(one: TuneJob, other: TuneJob) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_job_from_rows_to_an_adapter_that_is_served(device: CpuDevice, job: TuneJob, tmp_path: Path) -> None:
    plan = planned(device, job)
    assert plan.steps == 6 and plan.tokens > 0 and [row.what for row in plan.rows] == ["tuning"]
    assert device.tune(job) == plan
    events = run(device, "t1")
    steps = told(events, "train")
    assert [each.step for each in steps] == [1, 2, 3, 4, 5, 6] and {each.steps for each in steps} == {6}
    assert {"loss", "learning_rate", "tokens_per_s", "left_s", "peak_bytes"} <= steps[0].values.keys()
    assert [each.step for each in told(events, "checkpoint")] == [2, 4, 6]
    first, *_, last = told(events, "evaluate")
    assert first.step == 0 and last.values["eval_loss"] < first.values["eval_loss"]
    done = events[-1]
    assert isinstance(done, TuneDoneEvent) and done.reason == "done"
    assert done.values["eval_loss"] == last.values["eval_loss"]
    assert done.values["eval_loss_before"] == first.values["eval_loss"] and "loss" not in done.values
    assert done.manifest["base"] == "/models/base" and done.manifest["after"]["loss"] == last.values["eval_loss"]
    adapter = tiny_models.source_of(job.folder)
    device.load("a", adapter, LoadSettings(), tiny_models.silent, base="m")
    prompt = "three 13"
    mine = tiny_models.choice(device, tiny_models.ask(prompt, model="a", max_tokens=8))
    assert mine.tokens == _plain(tmp_path / "base", job.folder, prompt, 8)


def _plain(base: Path, adapter: Path, prompt: str, count: int) -> list[int]:
    """What plain PEFT says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = peft.PeftModel.from_pretrained(
            transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
        ).eval()
    ids = transformers.AutoTokenizer.from_pretrained(base)(prompt)["input_ids"]
    return tiny_models.greedy(module, ids, count)[0]


def test_requests_are_answered_alike_while_it_is_tuned(device: CpuDevice, job: TuneJob) -> None:
    ask = tiny_models.ask("one 1", id="r", max_tokens=12)
    alone = tiny_models.choice(device, ask)
    device.tune(job)
    answers, events = [], []
    for number in range(3):
        device.submit(replace(ask, id=f"r{number}"))
    for _ in range(5000):
        now = device.step()
        events += now
        answers += [each for each in now if isinstance(each, DoneEvent)]
        if len(answers) == 3:
            break
    assert [each.choices[0].tokens for each in answers] == [alone.tokens] * 3
    assert len(told(events, "train")) < 6, "requests go first: the job is not over yet"
    run(device, "t1")


def test_with_requests_between_its_slices_it_comes_to_the_same_weights(device: CpuDevice, job: TuneJob) -> None:
    device.tune(job)
    run(device, "t1")
    second = another(job, "t2")
    device.tune(second)
    for number in range(4):
        device.submit(tiny_models.ask("two 2", id=f"r{number}", max_tokens=20))
    run(device, "t2")
    assert equal(job, second)


def test_it_goes_on_from_its_newest_checkpoint_to_the_same_weights(device: CpuDevice, job: TuneJob) -> None:
    device.tune(job)
    run(device, "t1")
    second = another(job, "t2")
    device.tune(second)
    for _ in range(5000):
        if any(each.step == 4 for each in told(device.step(), "checkpoint")):
            break
    device.stop()
    another_life = started(job.folder.parent / "base")
    another_life.tune(second)
    assert [each.step for each in told(run(another_life, "t2"), "train")] == [5, 6]
    assert equal(job, second)
    another_life.stop()


def test_with_less_memory_it_comes_to_the_same_weights(device: CpuDevice, job: TuneJob) -> None:
    """What is computed again in the backward pass is what was computed before."""
    plans = {}
    for name, saving in (("plain", False), ("saving", True)):
        each = another(job, name, max_length=64, packing=True, options={"gradient_checkpointing": saving})
        plans[name] = device.tune(each).rows[0].predicted
        assert isinstance(run(device, name)[-1], TuneDoneEvent)
    mine, theirs = (load_file(job.folder.with_name(f"{name}-out") / "adapter_model.safetensors") for name in plans)
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in mine)
    assert plans["saving"] < plans["plain"]


def test_paused_it_stands_still_and_goes_on(device: CpuDevice, job: TuneJob) -> None:
    device.tune(job)
    while not told(device.step(), "train"):
        pass
    device.pause_tune("t1")
    assert [each for _ in range(20) for each in device.step()] == []
    device.resume_tune("t1")
    assert isinstance(run(device, "t1")[-1], TuneDoneEvent)


@pytest.mark.parametrize("paused", [False, True])
def test_cancelled_it_ends_and_holds_nothing(device: CpuDevice, job: TuneJob, paused: bool) -> None:
    device.tune(job)
    while not told(device.step(), "train"):
        pass
    if paused:
        device.pause_tune("t1")
    assert [row.owner for row in device.memory() if row.what == "tuning"] == ["t1"]
    device.cancel("t1")
    assert run(device, "t1")[-1].reason == "cancelled" and not job.folder.exists()
    assert not [row for row in device.memory() if row.what == "tuning"]
    device.sleep("m")


def test_a_checkpoint_can_be_asked_for(device: CpuDevice, job: TuneJob) -> None:
    mine = another(job, "t3", checkpoint_every=100)
    device.tune(mine)
    device.checkpoint_tune("t3")
    assert [each.step for each in told(run(device, "t3"), "checkpoint")] == [1]


def test_a_model_that_is_tuned_does_not_sleep_and_can_be_unloaded(device: CpuDevice, job: TuneJob) -> None:
    device.tune(job)
    device.step()
    with pytest.raises(BadState, match="tuned by t1"):
        device.sleep("m")
    device.unload("m")
    (ended,) = device.step()
    assert isinstance(ended, FailedEvent) and isinstance(ended.error, BadState) and ended.error.state == "unloaded"


def test_what_is_wrong_is_told_before_any_work(device: CpuDevice, job: TuneJob) -> None:
    device.tune(job)
    with pytest.raises(Exists):
        device.tune(job)
    for wrong, error, words in (
        ({"method": "lara"}, BadArgument, "lara"),
        ({"objective": "classification"}, BadModel, "sequence classifier"),
        ({"method": "bitfit"}, NotSupported, "no biases; take lora or last-layers"),
        ({"target_modules": ["query"]}, BadArgument, "query"),
    ):
        with pytest.raises(error) as raised:
            planned(device, another(job, "t2", **wrong))
        assert words in str(raised.value) + getattr(raised.value, "why", "")
    with pytest.raises(NotFound):
        device.plan_tune(replace(job, id="t3", model="other"))
    for call in (device.pause_tune, device.resume_tune, device.checkpoint_tune):
        with pytest.raises(NotFound):
            call("other")
    device.cancel("other")


def test_requests_are_answered_while_rows_are_read(device: CpuDevice, job: TuneJob) -> None:
    device.plan_tune(job)
    with pytest.raises(Exists):
        device.plan_tune(job)
    with pytest.raises(BadState, match="being planned"):
        device.check_untuned("m")
    device.set_budget({"slice_s": 0.0})  # after each row
    device.submit(tiny_models.ask("still there", max_tokens=3))
    events: list[Any] = []
    while not any(isinstance(each, TunePlannedEvent) for each in events):
        events += device.step()
    kinds = [type(each) for each in events]
    assert kinds.index(DoneEvent) < kinds.index(TunePlannedEvent)
    assert device.tune(job) == events[-1].plan and told(run(device, "t1"), "train")


def test_a_model_that_leaves_is_not_planned_for(device: CpuDevice, job: TuneJob) -> None:
    device.set_budget({"slice_s": 0.0})
    device.plan_tune(job)
    device.plan_tune(another(job, "t2"))
    device.step()
    device.end_tunings("m")
    failed = [each for each in device.step() if isinstance(each, FailedEvent)]
    assert [(each.request, type(each.error)) for each in failed] == [("t1", BadState), ("t2", BadState)]
    device.plan_tune(job)
    device.step()


def test_what_fails_underway_ends_the_job_alone(device: CpuDevice, job: TuneJob) -> None:
    device.tune(job)
    job.folder.parent.joinpath("keep").write_text("a file where the folder of checkpoints is to be")
    failed = run(device, "t1")[-1]
    assert isinstance(failed, FailedEvent) and isinstance(failed.error, DriverFailed) and "keep" in failed.error.cause
    assert tiny_models.choice(device, tiny_models.ask("still there", max_tokens=2)).tokens


def test_a_search_is_one_job_whose_result_is_the_best_trial(device: CpuDevice, job: TuneJob) -> None:
    search = {"space": {"learning_rate": [1e-9, 1e-2]}, "trials": 4, "parallel": 2, "sampler": "random"}
    asked = another(job, "t2", search=search)
    plan = device.tune(asked)
    assert plan.steps == 24 and plan.facts["search"]["trials"] == 4
    events = run(device, "t2", 20000)
    done = events[-1]
    assert isinstance(done, TuneDoneEvent) and done.reason == "done" and done.values["trials_done"] == 4
    best = done.manifest["trials"][done.manifest["best"]]
    assert best["parameters"] == {"learning_rate": 1e-2} and best["value"] == done.values["eval_loss"]
    assert told(events, "trial")[0].facts["trials"][0]["state"] == "running" and weights(asked)
    device.set_budget({"slice_s": 0.0})
    device.tune(another(job, "t3", search=search))
    for _ in range(20):
        device.step()
    device.cancel("t3")
    assert run(device, "t3")[-1].reason == "cancelled"

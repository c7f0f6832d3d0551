"""Jobs that look at other models of the device: one that teaches, and adapters that were learned before."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from lora_folders import base_of, save_adapter
from safetensors.torch import load_file

from llmos.drivers.contract import FailedEvent, LoadSettings, TuneDoneEvent, TuneJob
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.tuning.objectives.distillation import Distillation
from llmos.drivers.tuning.others import Others
from llmos.drivers.tuning.preparing import prepare
from llmos.syscalls.errors import BadArgument, BadModel, BadState, NotSupported

RECIPE: Mapping[str, Any] = {
    "method": "lora", "rank": 4, "batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "max_length": 32,
}  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def bases(tmp_path: Path) -> dict[str, Path]:
    """The model, one that teaches it, and one of other tokens."""
    return {
        "m": tiny_models.build(tmp_path / "m"),
        "big": tiny_models.build(tmp_path / "big", num_hidden_layers=3, hidden_size=32),
        "odd": tiny_models.build(tmp_path / "odd", tokenizer=tiny_models.byte_fallback()),
    }


@pytest.fixture
def device(bases: dict[str, Path]) -> Iterator[CpuDevice]:
    made = CpuDevice()
    made.start("cpu0", 1, {})
    for name, folder in bases.items():
        made.load(name, tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
    yield made
    made.stop()


@pytest.fixture
def job(tmp_path: Path) -> TuneJob:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.jsonl").write_text("".join(json.dumps({"text": f"one two {n}"}) + "\n" for n in range(8)))
    return TuneJob("t", "m", RECIPE, tiny_models.source_of(data), tmp_path / "out", tmp_path / "keep")


def asking(job: TuneJob, name: str, models: Mapping[str, str], **options: Any) -> TuneJob:
    folder = job.folder.with_name(name)
    recipe = {**job.recipe, "options": options}
    return replace(job, id=name, folder=folder, keep=folder.with_name(f"{name}-keep"), recipe=recipe, models=models)


def taught(job: TuneJob, name: str = "taught", teacher: str = "big", **more: Any) -> TuneJob:
    return asking(job, name, {teacher: teacher}, teacher={"model": teacher, "share": 0.9, **more})


def ended(device: CpuDevice, job: str) -> TuneDoneEvent | FailedEvent:
    for event in (event for _ in range(5000) for event in device.step()):
        if isinstance(event, TuneDoneEvent) and event.id == job:
            return event
        if isinstance(event, FailedEvent) and event.request == job:
            return event
    raise AssertionError(f"{job} has not ended")


def learnt(job: TuneJob) -> dict[str, torch.Tensor]:
    return load_file(job.folder / "adapter_model.safetensors")


def test_a_teacher_that_serves_is_learned_of(device: CpuDevice, job: TuneJob) -> None:
    plain = asking(job, "plain", {})
    for each in (taught(job), plain):
        device.tune(each)
        assert isinstance(ended(device, each.id), TuneDoneEvent)
    one, other = learnt(taught(job)), learnt(plain)
    assert one.keys() == other.keys() and any(not torch.equal(one[name], other[name]) for name in one)
    assert tiny_models.choice(device, tiny_models.ask("one", model="big", max_tokens=2)).tokens


def test_what_is_asked_is_the_model_that_serves(device: CpuDevice, job: TuneJob, bases: dict[str, Path]) -> None:
    engine = device._engine
    prepared = prepare(taught(job), engine.base("m"), others=Others({"big": engine.base("big")}))
    objective = prepared.objective
    assert isinstance(objective, Distillation) and prepared.judge is not objective
    theirs = transformers.AutoModelForCausalLM.from_pretrained(bases["big"], dtype=torch.float32)
    torch.testing.assert_close(objective.teacher(IDS).logits, theirs(IDS).logits, rtol=1e-4, atol=1e-4)
    assert not any(value.requires_grad for value in objective.teacher.parameters())


@pytest.mark.slow
def test_what_a_teacher_says_is_planned(device: CpuDevice, job: TuneJob) -> None:
    engine = device._engine
    others = Others({"big": engine.base("big")})
    plans = [prepare(each, engine.base("m"), others=others).plan.facts["bytes"]["activations"]
             for each in (asking(job, "plain", {}), taught(job))]  # fmt: skip
    scores = 4 * 256 * 4 * 8  # of each token, float32
    assert plans[1] > plans[0] + scores


def test_a_teacher_stays_while_it_is_asked(device: CpuDevice, job: TuneJob) -> None:
    device.tune(taught(job))
    device.step()
    with pytest.raises(BadState, match="big is tuned by taught"):
        device.sleep("big")
    device.unload("big")
    event = ended(device, "taught")
    assert isinstance(event, FailedEvent) and isinstance(event.error, BadState)


def refused(device: CpuDevice, job: TuneJob) -> Exception:
    device.plan_tune(job)
    event = ended(device, job.id)
    assert isinstance(event, FailedEvent)
    return event.error


def test_who_cannot_teach_is_refused_before_any_work(device: CpuDevice, job: TuneJob) -> None:
    error = refused(device, taught(job, teacher="odd"))
    assert isinstance(error, BadModel) and "odd cannot teach" in str(error) and "tokens are others" in str(error)
    error = refused(device, asking(job, "nobody", {}, teacher={"model": "nobody"}))
    assert isinstance(error, BadArgument) and "teacher 'nobody' is not a whole model" in str(error)


@pytest.mark.parametrize(
    ("layers", "said"),
    [([[-1, -1]], "states are 64 wide, those of big 32"), ([[0, 9]], "there is no layer 9; it is -3 to 2")],
)
def test_layers_that_cannot_be_compared_are_refused_before_any_work(
    device: CpuDevice, job: TuneJob, layers: list[list[int]], said: str
) -> None:
    device.load("same", device._engine._entries["m"].source, LoadSettings(dtype="float32"), tiny_models.silent)
    error = refused(device, taught(job, teacher="big" if layers == [[-1, -1]] else "same", layers=layers))
    assert isinstance(error, BadArgument) and error.name == "layers" and said in str(error)


def test_a_teacher_of_which_a_view_is_a_part_is_refused(device: CpuDevice, job: TuneJob) -> None:
    engine = device._engine
    part = dataclasses.replace(engine.base("big"), shares=object())  # type: ignore[arg-type]
    with pytest.raises(NotSupported, match="big cannot teach: its weights are split among ranks"):
        prepare(taught(job), engine.base("m"), others=Others({"big": part}))


def test_an_earlier_adapter_keeps_its_directions(
    device: CpuDevice, job: TuneJob, bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = save_adapter(base_of(bases["m"]), tmp_path / "old")
    device.load("old", tiny_models.source_of(folder), LoadSettings(), tiny_models.silent, base="m")
    files = load_file(folder / "adapter_model.safetensors")
    left = {}
    for name, weight in (("free", 1e-9), ("apart", 10.0)):
        asked = asking(job, name, {"old": "old"}, orthogonal={"to": ["old"], "weight": weight})
        asked = replace(asked, recipe={**asked.recipe, "max_steps": 20, "learning_rate": 3e-2})
        device.tune(asked)
        assert isinstance(ended(device, name), TuneDoneEvent)
        new = learnt(asked)
        shared = [key for key in files if ".lora_A." in key]
        assert shared and set(shared) <= new.keys()
        left[name] = sum(float((files[key] @ new[key].T).square().sum() / new[key].square().sum()) for key in shared)
    assert left["apart"] < 0.3 * left["free"]


@pytest.mark.slow
def test_an_adapter_neither_teaches_nor_is_a_model_an_adapter(
    device: CpuDevice, job: TuneJob, bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = save_adapter(base_of(bases["m"]), tmp_path / "old")
    device.load("old", tiny_models.source_of(folder), LoadSettings(), tiny_models.silent, base="m")
    error = refused(device, taught(job, teacher="old"))
    assert isinstance(error, BadArgument) and error.name == "teacher"
    error = refused(device, asking(job, "odd-one", {"big": "big"}, orthogonal={"to": ["big"]}))
    assert isinstance(error, BadArgument) and error.name == "to" and "low-rank adapter" in str(error)

"""Folders of models with bottlenecks: what they hold is what was written, and what does not fit is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import bottleneck, loader
from llmos.drivers.engine.bottleneck import ACTIVATIONS, Bottleneck, Bottlenecks, Followed
from llmos.drivers.engine.models import plan_model
from llmos.drivers.tuning.words import ACTIVATIONS as NAMES
from llmos.syscalls.errors import BadModel

LAYERS = ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tiny_models.build(tmp_path / "m")
    module = transformers.AutoModelForCausalLM.from_pretrained(made)
    torch.manual_seed(0)
    bottleneck.put(module, Bottlenecks(4, "relu", LAYERS), torch.float32)
    for value in bottleneck.parameters_of(module).values():
        nn.init.normal_(value, std=0.3)
    bottleneck.write(module, 4, "relu", made, torch.float32)
    return made


def load(folder: Path) -> Any:
    return loader.load(tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent).module


def test_what_was_written_is_loaded(folder: Path) -> None:
    module, stored = load(folder), load_file(folder / bottleneck.WEIGHTS)
    found = bottleneck.parameters_of(module)
    assert found.keys() == stored.keys() and len(found) == 8
    assert all(torch.equal(found[name], stored[name]) for name in found)
    assert not any(value.requires_grad for value in module.parameters())
    assert isinstance(module.get_submodule(LAYERS[0]), Followed)


def test_it_is_the_formula() -> None:
    torch.manual_seed(0)
    for name, between in ACTIVATIONS.items():
        made, x = Bottleneck(6, 2, name, torch.float32), torch.randn(3, 6)
        assert torch.equal(made(x), x), "it begins as nothing"
        nn.init.normal_(made.up.weight)
        wanted = x + functional.linear(between(functional.linear(x, made.down.weight, made.down.bias)), made.up.weight)
        torch.testing.assert_close(made(x), wanted)
        assert made(x.bfloat16()).dtype == torch.bfloat16
    assert set(ACTIVATIONS) == set(NAMES)


def test_its_bytes_are_planned(folder: Path) -> None:
    source = tiny_models.source_of(folder)
    more = plan_model(source, LoadSettings(dtype="float32"))[0].weights
    bare = tiny_models.source_of(folder, [each.name for each in source.files if "bottleneck" not in each.name])
    size = sum(value.nbytes for value in load_file(folder / bottleneck.WEIGHTS).values())
    assert more - plan_model(bare, LoadSettings(dtype="float32"))[0].weights >= size


@pytest.mark.parametrize("wrong", [
    {"width": 0}, {"width": "4"}, {"activation": "sin"}, {"layers": []}, {"layers": [1]}, {"layers": "o_proj"},
])  # fmt: skip
def test_settings_that_are_none_are_refused(folder: Path, wrong: dict[str, Any]) -> None:
    file = folder / bottleneck.SETTINGS
    file.write_text(json.dumps({**json.loads(file.read_text()), **wrong}))
    with pytest.raises(BadModel, match="it needs a width above 0") as raised:
        load(folder)
    assert raised.value.file == bottleneck.SETTINGS


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    file = folder / bottleneck.SETTINGS
    said = json.loads(file.read_text())
    for wrong in ({"width": 5}, {"layers": [*LAYERS, "model.layers.0.mlp.up_proj"]}):
        file.write_text(json.dumps({**said, **wrong}))
        with pytest.raises(BadModel) as raised:
            load(folder)
        assert raised.value.file == bottleneck.WEIGHTS
    for layer in ("model.layers.9.mlp.down_proj", "model.norm"):
        file.write_text(json.dumps({**said, "layers": [layer]}))
        with pytest.raises(BadModel, match="does not fit the model"):
            load(folder)
    file.write_text(json.dumps(said))
    weights = load_file(folder / bottleneck.WEIGHTS)
    save_file({**weights, f"{LAYERS[0]}.up.bias": torch.full((64,), torch.nan)}, folder / bottleneck.WEIGHTS)
    with pytest.raises(BadModel):
        load(folder)
    (folder / bottleneck.WEIGHTS).unlink()
    with pytest.raises(BadModel, match=r"has no bottleneck\.safetensors|missing"):
        load(folder)

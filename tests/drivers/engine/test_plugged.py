"""Models whose class a package brings: found by name, built from the configuration, filled from safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import silent, source_of
from torch import nn

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import kinds, loader, models, plugged
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.plugged import Architecture, PluggedModule
from llmos.syscalls.errors import BadModel


class Tied(nn.Module):
    """Two layers that share a weight, and a buffer that is in no file."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.one = nn.Linear(config["size"], config["size"])
        self.two = nn.Linear(config["size"], config["size"], bias=False)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x))) * self.scale


OWN = {"Tied": Architecture("Tied", Tied), "bare": Architecture("bare", lambda config: nn.Identity())}


def folder_of(folder: Path, module: nn.Module, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    state = {name: value for name, value in module.state_dict().items() if name != "two.weight"}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["Tied"], "size": 4, **config}))
    return folder


@pytest.fixture
def tied(tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module = Tied({"size": 4})
    return module, folder_of(tmp_path / "tied", module)


def load(folder: Path, **settings: Any) -> Bundle:
    return loader.load(source_of(folder), LoadSettings(**settings), silent, OWN)


def test_the_class_is_found_by_architecture_or_type() -> None:
    found = plugged.find(OWN, {"architectures": ["Tied"], "model_type": "llama"})
    assert found is not None and found.architecture.build is Tied
    assert plugged.find(OWN, {"model_type": "Tied"}) is not None
    for raw in ({}, {"architectures": ["Other"]}, {"architectures": "Tied"}, {"model_type": 3}):
        assert plugged.find(OWN, raw) is None


def test_a_model_is_loaded_whole(tied: tuple[nn.Module, Path]) -> None:
    module, folder = tied
    bundle = load(folder)
    assert (bundle.about.kind, bundle.about.architecture, bundle.tokenizer) == (kinds.PLUGIN, "Tied", None)
    x = torch.randn(3, 4)
    assert torch.equal(bundle.module(x=x), module(x))
    assert isinstance(bundle.module, PluggedModule) and bundle.module.device.type == "cpu"
    assert not bundle.chat and bundle.about.context == 0
    footprint, _ = models.plan_model(source_of(folder), LoadSettings(), OWN)
    assert footprint.parameters == 20 and footprint.weights >= 80


def test_precision_is_that_of_the_file_or_the_settings(tied: tuple[nn.Module, Path]) -> None:
    assert {each.dtype for each in load(tied[1]).module.parameters()} == {torch.float32}
    assert {each.dtype for each in load(tied[1], dtype="bfloat16").module.parameters()} == {torch.bfloat16}


def test_without_the_package_the_class_is_unknown(tied: tuple[nn.Module, Path]) -> None:
    with pytest.raises(BadModel, match="unknown architecture"):
        loader.load(source_of(tied[1]), LoadSettings(), silent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("one.bias"), r"needs one\.bias"),
        (lambda state: state.update({"one.bias": torch.zeros(5)}), r"another shape of one\.bias"),
        (lambda state: state.update({"three": torch.zeros(1)}), "no place for three"),
    ],
)
def test_weights_that_do_not_fit_are_named(tied: tuple[nn.Module, Path], change: Any, said: str) -> None:
    state = {name: value for name, value in tied[0].state_dict().items() if name != "two.weight"}
    change(state)
    save_file(state, tied[1] / "model.safetensors")
    with pytest.raises(BadModel, match=said) as error:
        load(tied[1])
    assert error.value.file == "model.safetensors"


def test_a_class_that_cannot_be_built_is_refused(tied: tuple[nn.Module, Path]) -> None:
    for fields, said in (({"size": "x"}, "cannot be built: TypeError"), ({"architectures": ["bare"]}, "no parameters")):
        folder_of(tied[1], tied[0], **fields)
        with pytest.raises(BadModel, match=said):
            load(tied[1])

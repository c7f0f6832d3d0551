"""Weights with values that are not finite are found, in files and on devices, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from quantized_folders import W8, quantize
from safetensors.torch import load_file, save_file
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import checkpoint, finite, loader
from llmos.syscalls.errors import BadModel

NAME = "model.layers.1.mlp.up_proj.scale"


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    return quantize(llama, tmp_path, W8)[0]


def test_what_is_whole_passes(folder: Path) -> None:
    weights = checkpoint.check_weights(source_of(folder))
    finite.check_finite(folder, weights, silent)
    finite.check_moved(loader.load(source_of(folder), LoadSettings(), silent).module, weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_scale_is_found(folder: Path, value: float) -> None:
    module = loader.load(source_of(folder), LoadSettings(), silent).module
    module.get_submodule(NAME.removesuffix(".scale")).scale[3, 1] = value
    weights = checkpoint.check_weights(source_of(folder))
    with pytest.raises(BadModel, match="scale has values that are not finite") as caught:
        finite.check_moved(module, weights)
    assert caught.value.file == "model.safetensors"
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME][3, 1] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match="scale has values that are not finite"):
        finite.check_finite(folder, weights, silent)


def test_the_extremes_show_it() -> None:
    assert finite.is_finite(torch.empty(0)) and finite.is_finite(torch.ones(3))
    assert not finite.is_finite(torch.tensor([1.0, float("nan"), 2.0]))

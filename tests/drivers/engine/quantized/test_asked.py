"""What is asked of weights, and what is said of wishes that go against what a folder is."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantized_folders import W4, W8, quantize
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings, ModelSource
from llmos.drivers.engine import loader
from llmos.drivers.engine.place import Processor
from llmos.drivers.engine.quantized.asked import quantized_asked, refuse_plugged, settle
from llmos.drivers.engine.quantized.folder import Quantized
from llmos.drivers.engine.quantized.library import stored
from llmos.drivers.ops.quantized import Scheme
from llmos.syscalls.errors import NotSupported

SOURCE = ModelSource("/models/m", "v1", [])
KEPT = Quantized({"lm_head": W4})


class Floating(Processor):
    def activations(self, kind: str) -> str:
        return "float8" if kind == "float" else "model"


def test_a_folder_or_a_wish_but_not_both() -> None:
    config = {"quantization_config": KEPT.as_config()}
    assert quantized_asked(SOURCE, {}, None) == (None, None)
    assert quantized_asked(SOURCE, config, None) == (KEPT, None)
    _, wish = quantized_asked(SOURCE, {}, {"width": 4, "group": 32, "activations": "model"})
    assert wish is not None and wish.scheme() == W4 and wish.activations == "model"
    with pytest.raises(NotSupported, match="quantized already"):
        quantized_asked(SOURCE, config, {"width": 4})
    with pytest.raises(NotSupported, match="quantized by unknown"):
        quantized_asked(SOURCE, {"quantization_config": [1]}, None)


def test_classes_of_packages_are_left_alone() -> None:
    refuse_plugged(SOURCE, None)
    with pytest.raises(NotSupported, match="comes from a package"):
        refuse_plugged(SOURCE, {"width": 4})


@pytest.mark.parametrize(("asked", "right"), [("auto", {"model", "float8"}), ("int8", {"int8"}), ("model", {"model"})])
def test_layers_are_told_what_their_inputs_are_rounded_to(
    llama: Path, tmp_path: Path, asked: str, right: set[str]
) -> None:
    folder, _ = quantize(llama, tmp_path, W8, Scheme(8, 0, "float"))
    module = loader.load(source_of(folder), LoadSettings(), silent).module
    settle(module, asked, Floating())
    assert {layer.activations for _, layer in stored(module)} == right

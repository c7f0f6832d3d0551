"""Whole folders of other projects: which layers are kept, and every tensor of what is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import Held, as_awq, as_gptq, drawn, meant
from llmos.drivers.formats import foreign
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme
from llmos.syscalls.errors import BadModel, NotSupported
from safetensors.torch import save_file

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64}
GROUPS = np.arange(128) // 64


def test_tensors_of_a_folder_are_those_of_ours(tmp_path: Path) -> None:
    layers = {name: drawn(32, 128, 64, 4, seed=at, zero=8) for at, name in enumerate(("a.q", "a.k"))}
    order = np.roll(GROUPS, 3)
    first = as_gptq("a.q", layers["a.q"], 4) | {"a.q.bias": torch.ones(32), "norm.weight": torch.ones(128)}
    save_file(first, tmp_path / "one.safetensors")
    save_file(as_gptq("a.k", layers["a.k"], 4, index=order), tmp_path / "two.safetensors")
    placed = dict.fromkeys(first, "one.safetensors") | {
        f"a.k.{part}": "two.safetensors" for part in ("qweight", "qzeros", "scales", "g_idx")
    }
    found = foreign.read("/m", GPTQ, foreign.SafeFiles(placed, str(tmp_path)))
    assert found.modules == {"a.q": Scheme(4, 64)} and [*found.widened] == ["a.k"]
    tensors = dict(found.tensors(torch.bfloat16))
    assert tensors.keys() == {"a.q.bias", "norm.weight", "a.q.numbers", "a.q.scale", "a.k.weight"}
    kept = QuantizedWeight(Scheme(4, 64), tensors["a.q.numbers"], tensors["a.q.scale"], None, 128)
    assert torch.equal(kept.dequantized(), meant(layers["a.q"], GROUPS))
    assert torch.equal(tensors["a.k.weight"], meant(layers["a.k"], order).bfloat16())
    assert tensors["a.q.scale"].dtype == found.layers["a.q"].scale


def test_layers_that_are_not_linear_in_the_model_are_dequantized() -> None:
    layer = drawn(16, 128, 64, 4)
    settings = {"quant_method": "awq", "bits": 4, "group_size": 64}
    found = foreign.read("/m", settings, Held(as_awq("experts.0", layer) | as_awq("q", layer)))
    assert set(found.modules) == {"experts.0", "q"}
    less = found.only(lambda name: "experts" not in name)
    tensors = dict(less.tensors(torch.float32))
    assert set(less.modules) == {"q"} and less.widened == {"experts.0": foreign.NOT_WANTED}
    assert tensors.keys() == {"experts.0.weight", "q.numbers", "q.scale", "q.shift"}
    assert torch.equal(tensors["experts.0.weight"], meant(layer, GROUPS))


def test_scales_of_caches_are_left_out_where_they_mean_nothing() -> None:
    tensors = {
        "a.k_scale": torch.ones(1), "x.input_scale": torch.ones(1),
        "x.weight": torch.zeros(4, 32, dtype=torch.int8), "x.weight_scale": torch.ones(4, 1),
    }  # fmt: skip
    found = foreign.read("/m", {"quant_method": "compressed-tensors", "format": "int-quantized"}, Held(tensors))
    assert [name for name, _ in found.tensors(torch.float32)] == ["x.numbers", "x.scale"]


def test_an_unknown_method_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(NotSupported, match="/m: the weights are quantized by quip; read are gptq, awq"):
        foreign.read("/m", {"quant_method": "quip"}, Held({}))


def test_a_folder_that_is_not_quantized_as_it_says_is_refused() -> None:
    with pytest.raises(BadModel, match="no layer is quantized by gptq"):
        foreign.read("/m", GPTQ, Held({"a.weight": torch.ones(2, 2)}))

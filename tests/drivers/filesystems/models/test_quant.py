"""What lists and manifests say of quantized folders."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.filesystems.models.headers import TensorHeader
from llmos.drivers.filesystems.models.quant import parameters, short_name

OURS = {"quant_method": "llmos", "modules": {"a": {"width": 4, "group": 128}, "b": {"width": 8, "group": 0}}}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
WEIGHTS = {"weights": {"num_bits": 8, "group_size": None}}
PACKED = {"quant_method": "compressed-tensors", "config_groups": {"g": WEIGHTS}}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (None, None), (7, None), (OURS, "w4-g128"), ({"quant_method": "llmos", "modules": 5}, "llmos"),
        (GPTQ, "gptq w4-g128"), ({"quant_method": "awq", "w_bit": 4, "q_group_size": -1}, "awq w4"),
        (PACKED, "compressed-tensors w8"), ({"quant_method": "fp8"}, "fp8"), ({}, "unknown"),
        (NF4, "bitsandbytes nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes int8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": 3}}, "compressed-tensors"),
    ],
)  # fmt: skip
def test_it_is_said_in_a_word(told: Any, name: str | None) -> None:
    assert short_name({} if told is None else {"quantization_config": told}) == name


@pytest.mark.parametrize(
    ("told", "tensors", "count"),
    [
        (None, {"w.weight": ("F32", 4, 6)}, 24),
        (OURS, {"a.numbers": ("U8", 4, 64), "a.scale": ("F16", 4, 1), "b.numbers": ("U8", 3, 5)}, 512 + 15),
        (GPTQ, {"a.qweight": ("I32", 16, 8), "a.qzeros": ("I32", 1, 1), "n.weight": ("F16", 9)}, 128 * 8 + 9),
        (PACKED, {"a.weight_packed": ("I32", 4, 8), "a.weight_shape": ("I64", 2)}, 4 * 32),
        (NF4, {"a.weight": ("U8", 50, 1), "a.weight.absmax": ("U8", 2), "a.weight.quant_state.x": ("U8", 80)}, 100),
    ],
)  # fmt: skip
def test_weights_are_counted_and_not_what_holds_them(told: Any, tensors: dict[str, Any], count: int) -> None:
    headers = [TensorHeader(name, dtype, tuple(shape), 0) for name, (dtype, *shape) in tensors.items()]
    assert parameters(headers, {} if told is None else {"quantization_config": told}) == count

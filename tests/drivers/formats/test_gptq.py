"""GPTQ: the weights that its formula means, kept in our numbers where groups are neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from llmos.drivers.formats import gptq
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme
from llmos.syscalls.errors import NotSupported

from foreign_checkpoints import Held, as_gptq, drawn, meant

OUTS, INS = 32, 256


def settings(bits: int, size: int, **more: object) -> dict[str, object]:
    return {"quant_method": "gptq", "bits": bits, "group_size": size, **more}


@pytest.mark.parametrize(
    ("bits", "size", "zero", "scheme"),
    [
        (4, 128, 8, Scheme(4, 128)), (4, 128, None, Scheme(4, 128, shift=True)), (4, 32, 8, Scheme(4, 32)),
        (4, -1, 8, Scheme(4, 0)), (8, 64, 128, Scheme(8, 64)), (8, 128, None, Scheme(8, 128, shift=True)),
        (2, 64, 2, Scheme(4, 64)), (3, 128, None, Scheme(4, 128, shift=True)), (3, 32, 4, Scheme(4, 32)),
        (4, 192, 8, Scheme(4, 64)), (4, 48, 8, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("index", [True, False], ids=["g_idx", "no g_idx"])
def test_the_weights_are_those_of_the_formula(
    bits: int, size: int, zero: int | None, scheme: Scheme | None, index: bool
) -> None:
    groups = np.arange(INS) // (size if size > 0 else INS)
    layer = drawn(OUTS, INS, size if size > 0 else INS, bits, seed=bits, zero=zero)
    tensors = as_gptq("a.b", layer, bits, index=groups if index else None)
    (found,) = gptq.layers(settings(bits, size), Held(tensors))
    assert found.scheme == scheme and bool(found.why) == (scheme is None)
    assert (found.name, found.outs, found.ins) == ("a.b", OUTS, INS) and set(found.parts) == set(tensors)
    weight = found.read()
    if isinstance(weight, QuantizedWeight):
        weight.check("a.b")
        assert weight.scheme == scheme and weight.scale.dtype == found.scale
    assert torch.equal(found.wide(), meant(layer, groups))


def test_the_second_version_stores_zeros_as_they_are_and_some_do_so_without_saying() -> None:
    layer = drawn(OUTS, INS, 64, 4, zero=8)
    tensors = Held(as_gptq("x", layer, 4, less=0))
    whole = meant(layer, np.arange(INS) // 64)
    for more in ({"checkpoint_format": "gptq_v2"}, {"sym": True}):
        (found,) = gptq.layers(settings(4, 64, **more), tensors)
        assert torch.equal(found.wide(), whole) and found.scheme == Scheme(4, 64)
    (found,) = gptq.layers(settings(4, 64, sym=False), tensors)
    assert not torch.equal(found.wide(), whole)


def test_a_zero_of_nought_is_kept_as_the_number_that_wraps() -> None:
    layer = drawn(OUTS, INS, 64, 4)
    layer["zeros"][1] = 0
    (found,) = gptq.layers(settings(4, 64), Held(as_gptq("x", layer, 4)))
    assert torch.equal(found.wide(), meant(layer, np.arange(INS) // 64))


def test_inputs_in_the_order_of_activations_are_dequantized() -> None:
    layer = drawn(OUTS, INS, 64, 4)
    index = np.random.default_rng(1).permutation(np.arange(INS) // 64)
    (found,) = gptq.layers(settings(4, 64, desc_act=True), Held(as_gptq("x", layer, 4, index=index)))
    assert found.scheme is None and "not neighbours" in found.why
    assert torch.equal(found.wide(), meant(layer, index))


@pytest.mark.parametrize("wrong", [{"bits": 5}, {"checkpoint_format": "marlin"}])
def test_other_layouts_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(NotSupported, match=str(next(iter(wrong.values())))):
        list(gptq.layers(settings(4, 64) | wrong, Held({})))

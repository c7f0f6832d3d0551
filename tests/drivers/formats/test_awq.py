"""AWQ: the weights that its formula means, in our numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from llmos.drivers.formats import awq
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme
from llmos.syscalls.errors import NotSupported

from foreign_checkpoints import Held, as_awq, drawn, meant

SETTINGS = {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm"}


@pytest.mark.parametrize(
    ("size", "zero", "scheme"),
    [
        (128, None, Scheme(4, 128, shift=True)), (64, 8, Scheme(4, 64)), (96, None, Scheme(4, 32, shift=True)),
        (48, 8, None),
    ],
)  # fmt: skip
def test_the_weights_are_those_of_the_formula(size: int, zero: int | None, scheme: Scheme | None) -> None:
    layer = drawn(24, 384, size, 4, zero=zero)
    tensors = as_awq("a.b", layer)
    (found,) = awq.layers(SETTINGS | {"group_size": size}, Held(tensors))
    assert found.scheme == scheme and bool(found.why) == (scheme is None)
    assert (found.name, found.outs, found.ins, set(found.parts)) == ("a.b", 24, 384, set(tensors))
    weight = found.read()
    if isinstance(weight, QuantizedWeight):
        weight.check("a.b")
    assert torch.equal(found.wide(), meant(layer, np.arange(384) // size))


def test_other_layouts_are_refused() -> None:
    for wrong in ({"version": "gemv"}, {"bits": 8}):
        with pytest.raises(NotSupported, match="AWQ of"):
            list(awq.layers(SETTINGS | wrong, Held({})))

"""Our weights as blocks of GGUF: where a kind is said to be exact, the package `gguf` reads the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gguf import GGMLQuantizationType, dequantize
from llmos.drivers.formats import gguf_blocks
from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from torch import Tensor

SCHEMES = [
    (Scheme(4, 32), "Q4_0"), (Scheme(4, 128), "Q4_0"), (Scheme(4, 0), "Q4_0"), (Scheme(4, 64, shift=True), "Q4_1"),
    (Scheme(8, 32), "Q8_0"), (Scheme(8, 0), "Q8_0"), (Scheme(8, 32, shift=True), ""), (Scheme(8, 0, "float"), ""),
]  # fmt: skip


def drawn(outs: int = 5, ins: int = 192) -> Tensor:
    return torch.randn(outs, ins, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("scheme", "kind"), SCHEMES, ids=str)
def test_the_same_weights_come_out_to_the_last_bit(scheme: Scheme, kind: str) -> None:
    weight = round_to_nearest(drawn(), scheme)
    assert gguf_blocks.exact(weight) == kind
    if kind:
        blocks = gguf_blocks.encoded(weight, kind)
        assert blocks.nbytes == gguf_blocks.size_of((5, 192), kind)
        read = torch.from_numpy(dequantize(blocks, GGMLQuantizationType[kind]).copy())
        assert torch.equal(read, weight.dequantized())


def test_scales_that_16_bits_do_not_hold_are_not_exact() -> None:
    weight = round_to_nearest(drawn(), Scheme(4, 32))
    wide = replace(weight, scale=weight.scale.float())
    assert gguf_blocks.exact(wide) == "Q4_0"
    assert gguf_blocks.exact(replace(wide, scale=wide.scale * 1.0001)) == ""
    assert gguf_blocks.exact(round_to_nearest(drawn(ins=48), Scheme(4, 32))) == ""


def test_what_16_bits_do_not_hold_stays_wide() -> None:
    assert gguf_blocks.wide_kind(torch.ones(3)) == "F32"
    assert gguf_blocks.wide_kind(torch.ones(3, 3)) == "F16"
    assert gguf_blocks.wide_kind(torch.full((3, 3), 7e4)) == "F32"


@pytest.mark.parametrize(("kind", "off"), [("F32", 0.0), ("F16", 1e-3), ("Q8_0", 0.02), ("Q4_0", 0.4)])
def test_values_are_rounded_to_a_kind(kind: str, off: float) -> None:
    values = drawn()
    data = gguf_blocks.rounded(values, kind)
    assert data.nbytes == gguf_blocks.size_of((5, 192), kind)
    read = torch.from_numpy(dequantize(data, GGMLQuantizationType[kind]).copy())
    assert float((read - values).abs().max()) <= off

"""compressed-tensors: the weights that the library itself decompresses, and those of the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from foreign_checkpoints import Held, drawn, meant, packed_rows
from llmos.drivers.formats import compressed
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme
from llmos.syscalls.errors import NotSupported
from torch import Tensor

OUTS, INS = 32, 256
PACK = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
PLAIN = {"quant_method": "compressed-tensors", "format": "float-quantized"}


def packed(name: str, layer: dict[str, Any], bits: int, shift: bool) -> dict[str, Tensor]:
    """A layer as the library packs it: numbers along the inputs, zeros along the outputs."""
    found = {
        f"{name}.weight_packed": packed_rows(layer["codes"], bits).T.contiguous(),
        f"{name}.weight_scale": torch.from_numpy(layer["scales"].T.copy()),
        f"{name}.weight_shape": torch.tensor([OUTS, INS]),
    }
    return found | ({f"{name}.weight_zero_point": packed_rows(layer["zeros"].T, bits)} if shift else {})


def test_the_width_of_few_inputs_is_that_which_the_groups_tell_or_refused() -> None:
    """Eight numbers of 3 bits fill a word as those of 4 do."""
    tensors = {
        "a.b.weight_packed": torch.tensor([[0b111_110_101_100_011_010_001_000]] * OUTS, dtype=torch.int32),
        "a.b.weight_scale": torch.ones(OUTS, 1), "a.b.weight_shape": torch.tensor([OUTS, 8]),
    }  # fmt: skip
    told = {"config_groups": {"group_0": {"weights": {"num_bits": 3}}, "group_1": {"weights": {"num_bits": 8}}}}
    (found,) = compressed.layers(PACK | told, Held(tensors))
    assert found.wide()[0].tolist() == [*range(-4, 4)]
    for groups in ({}, {"config_groups": {str(bits): {"weights": {"num_bits": bits}} for bits in (3, 4)}}):
        with pytest.raises(NotSupported, match="1, 2, 3, 4 bits make; config_groups say not which"):
            list(compressed.layers(PACK | groups, Held(tensors)))


@pytest.mark.parametrize(
    ("bits", "size", "shift", "scheme"),
    [
        (4, 128, False, Scheme(4, 128)), (4, 32, True, Scheme(4, 32, shift=True)), (8, 256, False, Scheme(8, 0)),
        (3, 64, False, Scheme(4, 64)), (6, 64, True, Scheme(8, 64, shift=True)), (4, 16, False, None),
    ],
)  # fmt: skip
def test_packed_numbers_mean_the_weights_of_the_formula(
    bits: int, size: int, shift: bool, scheme: Scheme | None
) -> None:
    layer = drawn(OUTS, INS, size, bits, zero=None if shift else 1 << (bits - 1))
    layer["zeros"] = np.minimum(layer["zeros"], 2**bits - 1)
    (found,) = compressed.layers(PACK, Held(packed("a.b", layer, bits, shift)))
    assert found.scheme == scheme and (found.outs, found.ins) == (OUTS, INS)
    weight = found.read()
    if isinstance(weight, QuantizedWeight):
        weight.check("a.b")
    assert torch.equal(found.wide(), meant(layer, np.arange(INS) // size))


def test_the_order_of_activations_is_seen() -> None:
    layer = drawn(OUTS, INS, 64, 4, zero=8)
    index = np.random.default_rng(0).permutation(np.arange(INS) // 64)
    tensors = packed("x", layer, 4, False) | {"x.weight_g_idx": torch.from_numpy(index)}
    (found,) = compressed.layers(PACK, Held(tensors))
    assert found.scheme is None and torch.equal(found.wide(), meant(layer, index))
    tensors["x.weight_g_idx"] = torch.full((INS,), -1)
    (found,) = compressed.layers(PACK, Held(tensors))
    assert found.scheme == Scheme(4, 64) and torch.equal(found.wide(), meant(layer, np.arange(INS) // 64))


@pytest.mark.parametrize(
    ("shape", "scheme"),
    [
        ((1,), Scheme(8, 0, "float")), ((OUTS, 1), Scheme(8, 0, "float")), ((OUTS, 2), Scheme(8, 128, "float")),
        ((2, 2), Scheme(8, 128, "float")), ((OUTS, 16), None),
    ],
)  # fmt: skip
def test_floating_numbers_keep_their_scales(shape: tuple[int, ...], scheme: Scheme | None) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(OUTS, INS, generator=generator).to(torch.float8_e4m3fn)
    scale = (torch.rand(shape, generator=generator) + 0.1).bfloat16()
    (found,) = compressed.layers(PLAIN, Held({"x.weight": numbers, "x.weight_scale": scale}))
    whole = scale.float().view(shape[0], -1)
    whole = whole.repeat_interleave(OUTS // whole.shape[0], 0).repeat_interleave(INS // whole.shape[1], 1)
    assert found.scheme == scheme and torch.equal(found.wide(), numbers.float() * whole)


def test_whole_numbers_of_8_bits_keep_zeros() -> None:
    numbers = torch.arange(-128, 128).repeat(OUTS, 1).to(torch.int8)
    generator = torch.Generator().manual_seed(0)
    scale, zero = torch.rand(OUTS, 1, generator=generator) + 0.1, torch.arange(OUTS).view(-1, 1).to(torch.int8) - 16
    tensors = {"x.weight": numbers, "x.weight_scale": scale}
    (found,) = compressed.layers(PLAIN | {"format": "int-quantized"}, Held(tensors))
    assert found.scheme == Scheme(8, 0) and torch.equal(found.wide(), numbers.float() * scale)
    (found,) = compressed.layers(PLAIN, Held(tensors | {"x.weight_zero_point": zero}))
    assert found.scheme == Scheme(8, 0, shift=True)
    twice_rounded = float(2 * 255 * scale.max() * 2**-24)  # the product of the number, and what the shift takes off
    torch.testing.assert_close(found.wide(), (numbers.float() - zero) * scale, rtol=1e-6, atol=twice_rounded)


def test_what_is_not_read_is_refused() -> None:
    for settings in (PACK | {"format": "marlin-24"}, PACK | {"format": "mixed-precision", "config_groups": {
        "a": {"format": "pack-quantized"}, "b": {"format": "nvfp4-pack-quantized"}}}):  # fmt: skip
        with pytest.raises(NotSupported, match=r"marlin-24|nvfp4"):
            list(compressed.layers(settings, Held({})))
    tensors = {"x.weight": torch.zeros(4, 4, dtype=torch.float8_e5m2), "x.weight_scale": torch.ones(1)}
    with pytest.raises(NotSupported, match="e5m2"):
        list(compressed.layers(PLAIN, Held(tensors)))
    layer = drawn(OUTS, INS, 64, 4, zero=8)
    tensors = packed("x", layer, 4, False)
    tensors["x.weight_packed"] = tensors["x.weight_packed"][:, :-1]
    with pytest.raises(NotSupported, match="31 words for 256 inputs"):
        list(compressed.layers(PACK, Held(tensors)))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["group", "channel"])
def test_the_library_decompresses_the_same(bits: int, symmetric: bool, strategy: str) -> None:
    library = pytest.importorskip("compressed_tensors.quantization")
    from compressed_tensors.compressors import PackedQuantizationCompressor

    size = 64 if strategy == "group" else None
    args = library.QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy=strategy, group_size=size)
    scheme = library.QuantizationScheme(targets=["Linear"], weights=args)
    generator = torch.Generator().manual_seed(bits)
    groups = INS // size if size else 1
    state = {
        "weight": torch.randn(OUTS, INS, generator=generator),
        "weight_scale": torch.rand(OUTS, groups, generator=generator) / 2**bits * 6 + 0.01,
        "weight_zero_point": torch.randint(-3, 3, (OUTS, groups), generator=generator).to(torch.int8),
    }
    if symmetric:
        del state["weight_zero_point"]
    stored = PackedQuantizationCompressor.compress(state, scheme)
    wanted = PackedQuantizationCompressor.decompress(dict(stored), scheme)["weight"]
    (found,) = compressed.layers(PACK, Held({f"x.{name}": tensor for name, tensor in stored.items()}))
    assert found.scheme is not None and found.scheme.shift is not symmetric
    torch.testing.assert_close(found.wide(), wanted, rtol=1e-6, atol=1e-6)
